"""Errors: one exception type, rendered by each dialect."""

import re
from collections.abc import Sequence
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
    QueueFullError: 429,  # not 503: some clients retry that at once
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
"""HTTP status for each error of the service; 500 for all others."""

_UNAVAILABLE_RETRY_S = 1.0
_REASONS = {400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED", 413: "TOO_LARGE"}
_STATUS_REASONS: dict[grpc.StatusCode, str] = {
    grpc.StatusCode.UNAVAILABLE: "SERVICE_UNAVAILABLE",
    grpc.StatusCode.DEADLINE_EXCEEDED: "DEADLINE",
}


@dataclass(eq=False)
class GatewayError(Exception):
    """A request failed.

    Attributes:
        status: HTTP status.
        message: Cause, and the allowed values.
        reason: Stable name of the cause; the reason of the service's ErrorInfo if it sent one.
        violations: Invalid fields, by the caller's names.
        retry_after_s: Seconds to wait before a retry; None if a retry cannot help.
    """

    status: int
    message: str
    reason: str
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None

    def __post_init__(self) -> None:
        """Escape what no answer can carry: halves of surrogate pairs, from the caller's JSON."""
        self.message = _encodable(self.message)
        self.violations = tuple(
            FieldViolation(_encodable(each.field), _encodable(each.description))
            for each in self.violations
        )

    def __str__(self) -> str:
        """Return the message."""
        return self.message

    @property
    def title(self) -> str:
        """Reason phrase of the status."""
        return HTTPStatus(self.status).phrase

    @property
    def is_loading(self) -> bool:
        """Whether the model is still loading."""
        return self.reason == "MODEL_LOADING"

    @property
    def ascii_message(self) -> str:
        """The message as a header value: one line of printable ASCII."""
        line = re.sub(r"[\s\x00-\x1f\x7f]+", " ", self.message)
        return line.encode("ascii", "replace").decode()[:1000].strip()


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def bad_request(message: str, status: int = 400) -> GatewayError:
    """Return the error for a request that the route cannot read."""
    return GatewayError(status, message, _REASONS.get(status, "BAD_REQUEST"))


def invalid_field(field: str, description: str) -> GatewayError:
    """Return the error for an invalid field."""
    return invalid_fields((FieldViolation(field, description),))


def invalid_fields(violations: Sequence[FieldViolation]) -> GatewayError:
    """Return the error for invalid fields."""
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return GatewayError(422, message, "INVALID_REQUEST", tuple(violations))


def from_service(error: SafelightError) -> GatewayError:
    """Convert an error of the gRPC client."""
    status = next((_HTTP_STATUSES[t] for t in type(error).__mro__ if t in _HTTP_STATUSES), 500)
    if not isinstance(error, ServiceError):
        return GatewayError(502, str(error), "PROTOCOL")
    if error.code is grpc.StatusCode.UNAVAILABLE and error.reason is None:
        # The message of gRPC itself would reveal addresses.
        return GatewayError(
            503,
            "the service cannot be reached",
            "SERVICE_UNAVAILABLE",
            retry_after_s=_UNAVAILABLE_RETRY_S,
        )
    reason = error.reason or _STATUS_REASONS.get(error.code, error.code.name)
    return GatewayError(status, str(error), reason, error.violations, error.retry_after_s)
