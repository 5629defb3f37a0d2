"""Status: maps the domain's errors to gRPC statuses with rich details.

Every failure carries a google.rpc.Status. Its details hold an ErrorInfo with a stable reason
and the domain "safelight", and BadRequest, QuotaFailure or RetryInfo where they apply.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from safelight_service.core import errors

DOMAIN = "safelight"


@dataclass(frozen=True, slots=True)
class _Row:
    code: code_pb2.Code.ValueType
    reason: str


TABLE: dict[type[errors.SafelightError], _Row] = {
    errors.UnauthenticatedError: _Row(code_pb2.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.RateLimitedError: _Row(code_pb2.RESOURCE_EXHAUSTED, "RATE_LIMITED"),
    errors.TooManyGenerationsError: _Row(code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_GENERATIONS"),
    errors.TooManyCallsError: _Row(code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS"),
    errors.RequestTimeoutError: _Row(code_pb2.DEADLINE_EXCEEDED, "REQUEST_TIMEOUT"),
    errors.TooManyWatchesError: _Row(code_pb2.RESOURCE_EXHAUSTED, "TOO_MANY_WATCHES"),
    errors.InvalidRequestError: _Row(code_pb2.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.ModelNotFoundError: _Row(code_pb2.NOT_FOUND, "MODEL_NOT_FOUND"),
    errors.ModelForbiddenError: _Row(code_pb2.PERMISSION_DENIED, "MODEL_FORBIDDEN"),
    errors.GenerationExistsError: _Row(code_pb2.ALREADY_EXISTS, "GENERATION_EXISTS"),
    errors.GenerationNotFoundError: _Row(code_pb2.NOT_FOUND, "GENERATION_NOT_FOUND"),
    errors.GenerationCancelledError: _Row(code_pb2.CANCELLED, "CANCELLED"),
    errors.TimeLimitError: _Row(code_pb2.DEADLINE_EXCEEDED, "TIME_LIMIT"),
    errors.DeadlineError: _Row(code_pb2.DEADLINE_EXCEEDED, "DEADLINE"),
    errors.ReaderStalledError: _Row(code_pb2.DEADLINE_EXCEEDED, "READER_STALLED"),
    errors.QueueFullError: _Row(code_pb2.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    errors.OutOfMemoryError: _Row(code_pb2.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY"),
    errors.NonFiniteImageError: _Row(code_pb2.INTERNAL, "NON_FINITE_IMAGE"),
    errors.ModelLoadingError: _Row(code_pb2.UNAVAILABLE, "MODEL_LOADING"),
    errors.ModelFailedError: _Row(code_pb2.FAILED_PRECONDITION, "MODEL_FAILED"),
    errors.StoppingError: _Row(code_pb2.UNAVAILABLE, "STOPPING"),
    errors.DeviceLostError: _Row(code_pb2.UNAVAILABLE, "DEVICE_LOST"),
    errors.NoEngineError: _Row(code_pb2.UNAVAILABLE, "NO_ENGINE"),
    errors.InternalError: _Row(code_pb2.INTERNAL, "INTERNAL"),
}


def reason_of(error: errors.SafelightError) -> str:
    """Return the stable reason of an error."""
    return TABLE[type(error)].reason


def to_status(error: errors.SafelightError) -> grpc.Status:
    """Return the status of an error, for `context.abort_with_status`."""
    row = TABLE[type(error)]
    status = status_pb2.Status(code=row.code, message=str(error))
    status.details.extend(_pack(_details(error, row.reason)))
    rich: Any = rpc_status.to_status(status)
    extended: grpc.Status = rich._replace(
        trailing_metadata=(*rich.trailing_metadata, *_pushback(error))
    )
    return extended


def _pushback(error: errors.SafelightError) -> Sequence[tuple[str, str]]:
    """Set grpc-retry-pushback-ms: the delay, or -1 when the caller declined to wait."""
    if isinstance(error, errors.ModelLoadingError):
        return [("grpc-retry-pushback-ms", "-1")]
    if isinstance(error, errors.RetryableError):
        return [("grpc-retry-pushback-ms", str(round(error.retry_after_s * 1e3)))]
    return []


def _details(error: errors.SafelightError, reason: str) -> Sequence[Message]:
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN)]
    if isinstance(error, errors.InvalidRequestError):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        details.append(error_details_pb2.BadRequest(field_violations=violations))
    if isinstance(error, errors.RateLimitedError | errors.TooManyGenerationsError):
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=f"token:{error.token}", description=str(error)
        )
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    if isinstance(error, errors.RetryableError):
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    return details


def _pack(details: Sequence[Message]) -> list[AnyMessage]:
    packed = []
    for detail in details:
        message = AnyMessage()
        message.Pack(detail)
        packed.append(message)
    return packed
