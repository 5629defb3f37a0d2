"""The errors of a client, and the table from gRPC's statuses to them.

SafelightError
├── ServiceError                     the call ended with a status other than OK
│   ├── InvalidRequestError          fields break their rules; also a ValueError
│   ├── ModelNotFoundError           the service has no such model
│   ├── GenerationExistsError        the generation id is in use for another request
│   ├── GenerationNotFoundError      the generation neither runs nor has recently ended
│   ├── ResourceExhaustedError       a limit is reached
│   │   ├── QueueFullError           too many generations wait
│   │   ├── QuotaExceededError       the caller has used up its generations or streams
│   │   └── OutOfMemoryError         the device has too little memory for the request
│   ├── ServiceUnavailableError      not reachable, or stopping
│   │   └── ModelLoadingError        the model is being loaded
│   ├── ModelFailedError             the model, or an adapter, cannot be loaded
│   ├── UnauthenticatedError         the token is missing or unknown
│   ├── PermissionDeniedError        the token does not allow this
│   ├── DeadlineExceededError        the time-out has passed; also a TimeoutError
│   ├── CallCancelledError           the call was cancelled
│   └── InternalServiceError         a fault of the service
│       └── NonFiniteImageError      an image has values that are not finite
└── ProtocolError                    the service broke the contract
    └── IntegrityError               an image has other bytes than announced
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DOMAIN = "safelight"


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """A field of a request that breaks its rule.

    Attributes:
        field: Path in the contract, such as `parameters.width`.
        description: The allowed values, and the value of the request.
    """

    field: str
    description: str


class SafelightError(Exception):
    """Root of all errors of this package."""


class ServiceError(SafelightError):
    """A call ended with a status other than OK.

    Raised itself where no subclass fits, for example for UNIMPLEMENTED.

    Attributes:
        code: The gRPC status code.
        reason: The service's stable name for the cause, such as `QUEUE_FULL`. None if
            the status is not the service's: a proxy refused, or the connection broke.
        violations: The fields that break their rules; empty for other causes.
        retry_after_s: Seconds to wait before another call; None if unknown.
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
        """Create an error of a status. Only the message is required."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.violations = violations
        self.retry_after_s = retry_after_s


class InvalidRequestError(ServiceError, ValueError):
    """Fields break their rules; `violations` lists all of them."""


class ModelNotFoundError(ServiceError):
    """The service has no model of this name."""


class GenerationExistsError(ServiceError):
    """Another request uses the generation id."""


class GenerationNotFoundError(ServiceError):
    """The generation neither runs nor has recently ended."""


class ResourceExhaustedError(ServiceError):
    """A limit is reached, such as the size of a message."""


class QueueFullError(ResourceExhaustedError):
    """The queue is full; try again after `retry_after_s`."""


class QuotaExceededError(ResourceExhaustedError):
    """The caller has reached a limit: generations in a minute or at once, or open calls."""


class OutOfMemoryError(ResourceExhaustedError):
    """The device has too little memory for this request."""


class ServiceUnavailableError(ServiceError):
    """The service cannot be reached, is stopping, or has lost its device."""


class ModelLoadingError(ServiceUnavailableError):
    """The model is being loaded; try again after `retry_after_s`."""


class ModelFailedError(ServiceError):
    """The model, or an adapter of it, cannot be loaded."""


class UnauthenticatedError(ServiceError):
    """The service requires a token, and it is missing or unknown."""


class PermissionDeniedError(ServiceError):
    """The token is known but does not allow this call."""


class DeadlineExceededError(ServiceError, TimeoutError):
    """The time-out has passed or is too short for the request; the service has stopped the work."""


class CallCancelledError(ServiceError):
    """The call was cancelled by its caller, or the generation by its id."""


class InternalServiceError(ServiceError):
    """A fault of the service; the message holds the id of an entry in its log."""


class NonFiniteImageError(InternalServiceError):
    """An image came out as NaN or infinity, by the model's weights, its scheduler or its precision.

    The same request fails again; another scheduler, more steps or less guidance may not.
    """


class ProtocolError(SafelightError):
    """The service broke the contract; its stream cannot be trusted."""


class IntegrityError(ProtocolError):
    """The bytes of an image differ from the announced size or SHA-256."""


ERROR_TYPES: dict[tuple[grpc.StatusCode, str | None], type[ServiceError]] = {
    (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"): InvalidRequestError,
    (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND"): ModelNotFoundError,
    (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"): UnauthenticatedError,
    (grpc.StatusCode.PERMISSION_DENIED, "MODEL_FORBIDDEN"): PermissionDeniedError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED"): QuotaExceededError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_GENERATIONS"): QuotaExceededError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS"): QuotaExceededError,
    (grpc.StatusCode.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT"): DeadlineExceededError,
    (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES"): QuotaExceededError,
    (grpc.StatusCode.UNAVAILABLE, "STOPPING"): ServiceUnavailableError,
    (grpc.StatusCode.UNAVAILABLE, "DEVICE_LOST"): ServiceUnavailableError,
    (grpc.StatusCode.UNAVAILABLE, "NO_ENGINE"): ServiceUnavailableError,
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
"""The error of each status code and reason; None stands for no reason or an unknown one."""


@contextmanager
def service_errors() -> Iterator[None]:
    """Turn gRPC's errors in this block into errors of this package.

    Raises:
        ServiceError: a call failed; its subclasses name the cause.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise _error_from_rpc(error) from error


def _error_from_rpc(error: grpc.RpcError) -> ServiceError:
    code = error.code()
    reason: str | None = None
    violations: tuple[FieldViolation, ...] = ()
    retry_after_s: float | None = None
    for detail in _details_of(error):
        with suppress(ValueError, DecodeError):  # a proxy may send details that cannot be read
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason = info.reason if info.domain == _DOMAIN else reason
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


def details_of(error: ServiceError) -> Sequence[AnyMessage]:
    """Return the google.rpc details of a failure, packed; none if they cannot be read."""
    cause = error.__cause__
    return _details_of(cause) if isinstance(cause, grpc.RpcError) else ()


def _details_of(error: grpc.RpcError) -> Sequence[AnyMessage]:
    # grpc_status reads none if the message or the code differs from theirs.
    for key, value in cast(grpc.Call, error).trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            with suppress(DecodeError):
                status = status_pb2.Status.FromString(cast(bytes, value))
                return cast(Sequence[AnyMessage], status.details)
    return ()
