"""Statuses as the service sends them, with their google.rpc details."""

from collections.abc import Sequence
from typing import Any, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

PUSHBACK = "grpc-retry-pushback-ms"


def abort(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    message: str,
    details: Sequence[Message] | bytes = (),
    pushback_ms: int | None = None,
) -> NoReturn:
    """End a call with this status.

    Args:
        context: The call.
        code: Code of the status.
        message: Message of the status.
        details: The google.rpc messages in `grpc-status-details-bin`, packed or not; or its bytes.
        pushback_ms: Milliseconds to wait before another attempt, or -1 to forbid it; None for
            neither.
    """
    status = status_pb2.Status(code=code.value[0], message=message)
    if not isinstance(details, bytes):
        status.details.extend(map(_pack, details))
    rich: Any = rpc_status.to_status(status)
    metadata: tuple[tuple[str, str | bytes], ...] = ()
    if details:
        [(key, value)] = rich.trailing_metadata
        metadata = ((key, details if isinstance(details, bytes) else value),)
    if pushback_ms is not None:
        metadata = (*metadata, (PUSHBACK, str(pushback_ms)))
    context.abort_with_status(rich._replace(trailing_metadata=tuple(metadata)))
    raise AssertionError("abort_with_status has returned")


def refuse(
    context: grpc.ServicerContext,
    code: grpc.StatusCode,
    reason: str,
    message: str,
    violations: Sequence[tuple[str, str]] = (),
) -> NoReturn:
    """End a call as the service does: with a reason, and the fields that break their rules."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=reason, domain="safelight")]
    if violations:
        details.append(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=field, description=text)
                    for field, text in violations
                ]
            )
        )
    abort(context, code, message, details)


def _pack(detail: Message) -> AnyMessage:
    if isinstance(detail, AnyMessage):
        return detail
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
