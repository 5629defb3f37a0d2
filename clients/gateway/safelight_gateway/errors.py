"""Errors: one type that every dialect renders in its own way."""

import re
from dataclasses import dataclass
from http import HTTPStatus

import grpc
from safelight import (
    CallCancelledError,
    DeadlineExceededError,
    FieldViolation,
    GenerationExistsError,
    GenerationNotFoundError,
    InvalidRequestError,
    ModelLoadingError,
    ModelNotFoundError,
    OutOfMemoryError,
    PermissionDeniedError,
    QueueFullError,
    QuotaExceededError,
    ResourceExhaustedError,
    SafelightError,
    ServiceError,
    ServiceUnavailableError,
    UnauthenticatedError,
)

_HTTP_STATUSES: dict[type[SafelightError], int] = {
    InvalidRequestError: 422,
    ModelNotFoundError: 404,
    GenerationExistsError: 409,
    GenerationNotFoundError: 404,
    QueueFullError: 429,  # not 503, which some clients answer by asking again at once
    QuotaExceededError: 429,
    OutOfMemoryError: 500,
    ResourceExhaustedError: 413,
    ModelLoadingError: 503,
    ServiceUnavailableError: 503,
    UnauthenticatedError: 401,
    PermissionDeniedError: 403,
    DeadlineExceededError: 504,
    CallCancelledError: 409,
}
"""The HTTP status of each error of the service; of the others it is 500."""

_UNAVAILABLE_RETRY_S = 1.0
_REASONS = {400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}
_STATUS_REASONS: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.UNAVAILABLE: "SERVICE_UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE",
}


@dataclass(eq=False)
class GatewayError(Exception):
    """Why a request was not answered as it asked.

    Attributes:
        status: HTTP status.
        message: What was wrong and what is allowed.
        reason: Stable name of the cause: that of the service's ErrorInfo where it gave one.
        violations: The fields that broke their rules, by the names of the gRPC contract.
        retry_after_s: Seconds after which to try again; None where that is of no use.
    """

    status: int
    message: str
    reason: str
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None

    def __str__(self) -> str:
        """Return the message."""
        return self.message

    @property
    def title(self) -> str:
        """The status in words."""
        return HTTPStatus(self.status).phrase

    @property
    def is_loading(self) -> bool:
        """Whether the model is being loaded."""
        return self.reason == "MODEL_LOADING"

    @property
    def ascii_message(self) -> str:
        """The message as the value of a header: printable ASCII on one line."""
        line = re.sub(r"\s+", " ", self.message)
        return line.encode("ascii", "replace").decode()[:1000].strip()


def bad_request(message: str, status: int = 400) -> GatewayError:
    """Return the error of a request that is no request of this route at all."""
    return GatewayError(status, message, _REASONS.get(status, "BAD_REQUEST"))


def invalid_field(field: str, description: str) -> GatewayError:
    """Return the error of a field that breaks its rule."""
    violation = FieldViolation(field, description)
    return GatewayError(422, f"{field}: {description}", "INVALID_REQUEST", (violation,))


def from_service(error: SafelightError) -> GatewayError:
    """Return what an error of the client is over HTTP."""
    status = next((_HTTP_STATUSES[t] for t in type(error).__mro__ if t in _HTTP_STATUSES), 500)
    if not isinstance(error, ServiceError):
        return GatewayError(502, str(error), "PROTOCOL")
    if error.code is grpc.StatusCode.UNAVAILABLE and error.reason is None:
        # The words of gRPC's own failure hold addresses, which are nobody's business.
        return GatewayError(
            503,
            "the service cannot be reached",
            "SERVICE_UNAVAILABLE",
            retry_after_s=_UNAVAILABLE_RETRY_S,
        )
    reason = error.reason or _STATUS_REASONS.get(error.code, error.code.name)
    return GatewayError(status, str(error), reason, error.violations, error.retry_after_s)
