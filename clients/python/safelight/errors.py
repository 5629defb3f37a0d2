"""The errors that a client raises, and the one table that picks them.

SafelightError
├── ServiceError                     the call ended with a status other than OK
│   ├── InvalidRequestError          fields outside their rules; also a ValueError
│   ├── ModelNotFoundError           the model is not one that is served
│   ├── GenerationExistsError        the generation id is in use for another request
│   ├── GenerationNotFoundError      the generation does not run, nor has ended lately
│   ├── ResourceExhaustedError       a limit was met
│   │   ├── QueueFullError           too many generations wait
│   │   ├── QuotaExceededError       the token has used up what it may
│   │   └── OutOfMemoryError         the device is too small for the request
│   ├── ServiceUnavailableError      not reachable, or stopping
│   │   └── ModelLoadingError        the model is being loaded
│   ├── ModelFailedError             the model cannot be loaded
│   ├── UnauthenticatedError         no token, or an unknown one
│   ├── PermissionDeniedError        the token does not allow this
│   ├── DeadlineExceededError        the time-out passed; also a TimeoutError
│   ├── CallCancelledError           the call was cancelled
│   └── InternalServiceError         a fault of the service
│       └── NonFiniteImageError      an image has values that are not finite
└── ProtocolError                    the service broke the contract
    └── IntegrityError               an image's bytes are not the announced ones
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2
from grpc_status import rpc_status

_DOMAIN = "safelight"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that breaks its rule.

    Attributes:
        field: Path in the contract, such as `parameters.width`.
        description: What is allowed and what was sent.
    """

    field: str
    description: str


class SafelightError(Exception):
    """The root of all errors of this package."""


class ServiceError(SafelightError):
    """A call ended with a status other than OK.

    Raised itself where no subclass fits, such as for UNIMPLEMENTED.

    Attributes:
        code: The gRPC status code.
        reason: The service's stable name for the cause, such as `QUEUE_FULL`;
            None where it gave none.
        violations: The fields that broke their rules; mostly empty.
        retry_after_s: Seconds after which to try again; None where the service
            did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str | None = None,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        """Make an error of a call's status; all but the message can be left out in tests."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.violations = violations
        self.retry_after_s = retry_after_s


class InvalidRequestError(ServiceError, ValueError):
    """Fields are outside their rules; `violations` lists all of them."""


class ModelNotFoundError(ServiceError):
    """The model is not one that is served."""


class GenerationExistsError(ServiceError):
    """The generation id names the generation of another request."""


class GenerationNotFoundError(ServiceError):
    """The generation does not run, and has not ended lately."""


class ResourceExhaustedError(ServiceError):
    """A limit was met, such as the size of a message."""


class QueueFullError(ResourceExhaustedError):
    """Too many generations wait; `retry_after_s` says when to come back."""


class QuotaExceededError(ResourceExhaustedError):
    """The token runs as many generations as it may, or has started as many within a minute."""


class OutOfMemoryError(ResourceExhaustedError):
    """The device has too little memory for this request."""


class ServiceUnavailableError(ServiceError):
    """The service cannot be reached, is stopping, or has lost its device."""


class ModelLoadingError(ServiceUnavailableError):
    """The model is being loaded; `retry_after_s` says when to come back."""


class ModelFailedError(ServiceError):
    """The model cannot be loaded."""


class UnauthenticatedError(ServiceError):
    """The service asks for a token and got none, or one that it does not know."""


class PermissionDeniedError(ServiceError):
    """The token is known but does not allow this call."""


class DeadlineExceededError(ServiceError, TimeoutError):
    """The call's time-out has passed, or cannot be met; the service has stopped the work."""


class CallCancelledError(ServiceError):
    """The call was cancelled: by the caller, or the generation by its id."""


class InternalServiceError(ServiceError):
    """A fault of the service; the message holds the id that its log repeats."""


class NonFiniteImageError(InternalServiceError):
    """An image came out as NaN or infinity, by the model's weights, its scheduler or its precision.

    The same request fails again; another scheduler, more steps or less guidance may not.
    """


class ProtocolError(SafelightError):
    """The service broke the contract, so what it sent cannot be trusted."""


class IntegrityError(ProtocolError):
    """The bytes of an image are not those that were announced."""


ERROR_TYPES: dict[tuple[grpc.StatusCode, str | None], type[ServiceError]] = {
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"): InvalidRequestError,
    (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"): ModelNotFoundError,
    (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"): UnauthenticatedError,
    (grpc.StatusCode.PERMISSION_DENIED, "MODEL_FORBIDDEN"): PermissionDeniedError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"): QuotaExceededError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_GENERATIONS"): QuotaExceededError,
    (grpc.StatusCode.UNAVAILABLE, "STOPPING"): ServiceUnavailableError,
    (grpc.StatusCode.UNAVAILABLE, "DEVICE_LOST"): ServiceUnavailableError,
    (grpc.StatusCode.INTERNAL, "INTERNAL"): InternalServiceError,
    (grpc.StatusCode.ALREADY_EXISTS, "GENERATION_EXISTS"): GenerationExistsError,
    (grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND"): GenerationNotFoundError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL"): QueueFullError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"): OutOfMemoryError,
    (grpc.StatusCode.INTERNAL, "NON_FINITE_IMAGE"): NonFiniteImageError,
    (grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING"): ModelLoadingError,
    (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_FAILED"): ModelFailedError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE"): DeadlineExceededError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "TIME_LIMIT"): DeadlineExceededError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "READER_STALLED"): DeadlineExceededError,
    (grpc.StatusCode.CANCELLED, "CANCELLED"): CallCancelledError,
    # Without a reason, or with one that this client does not know, the code decides.
    (grpc.StatusCode.CANCELLED, None): CallCancelledError,
    (grpc.StatusCode.UNKNOWN, None): InternalServiceError,
    (grpc.StatusCode.INVALID_ARGUMENT, None): InvalidRequestError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, None): DeadlineExceededError,
    (grpc.StatusCode.NOT_FOUND, None): ServiceError,
    (grpc.StatusCode.ALREADY_EXISTS, None): ServiceError,
    (grpc.StatusCode.PERMISSION_DENIED, None): PermissionDeniedError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, None): ResourceExhaustedError,
    (grpc.StatusCode.FAILED_PRECONDITION, None): ServiceError,
    (grpc.StatusCode.ABORTED, None): ServiceError,
    (grpc.StatusCode.OUT_OF_RANGE, None): ServiceError,
    (grpc.StatusCode.UNIMPLEMENTED, None): ServiceError,
    (grpc.StatusCode.INTERNAL, None): InternalServiceError,
    (grpc.StatusCode.UNAVAILABLE, None): ServiceUnavailableError,
    (grpc.StatusCode.DATA_LOSS, None): ServiceError,
    (grpc.StatusCode.UNAUTHENTICATED, None): UnauthenticatedError,
}
"""The error of each status code and, where the service gives one, reason."""


@contextmanager
def service_errors() -> Iterator[None]:
    """Raise gRPC's errors as those of this package."""
    try:
        yield
    except grpc.RpcError as error:
        raise _error_from_rpc(error) from error


def _error_from_rpc(error: grpc.RpcError) -> ServiceError:
    code = error.code()
    reason: str | None = None
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    # Details that cannot be read, say from a proxy, leave an error without them.
    with suppress(ValueError, DecodeError):
        status = rpc_status.from_call(cast(grpc.Call, error))
        for detail in status.details if status is not None else ():
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason = info.reason if info.domain == _DOMAIN else None
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad_request = error_details_pb2.BadRequest.FromString(detail.value)
                violations = tuple(
                    FieldViolation(violation.field, violation.description)
                    for violation in bad_request.field_violations
                )
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                retry_info = error_details_pb2.RetryInfo.FromString(detail.value)
                retry_after_s = retry_info.retry_delay.ToTimedelta().total_seconds()
    error_type = ERROR_TYPES.get((code, reason)) or ERROR_TYPES[code, None]
    return error_type(
        error.details() or code.name,
        code=code,
        reason=reason,
        violations=violations,
        retry_after_s=retry_after_s,
    )
