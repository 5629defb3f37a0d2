"""Errors: an interceptor that turns every failure into a rich status.

It also refuses calls while the service stops. Without it, grpc.aio would send the text of an
uncaught exception to the caller. A CancelledError that leaks from an inner task would leave the
caller waiting forever. A stalled reader would hold its generation without limit.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from safelight_service.core.errors import (
    FieldViolation,
    InvalidRequestError,
    ReaderStalledError,
    SafelightError,
    report_fault,
)
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.grpc_server.drain import OngoingCalls
from safelight_service.grpc_server.status import reason_of, to_status
from safelight_service.grpc_server.unknown_fields import refuse_unknown_fields

MALFORMED = FieldViolation("", "the bytes are not a message of the method's request type")

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Any
"""grpc.RpcMethodHandler of grpc.aio; gRPC's type stubs describe only the synchronous server."""

_Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]]


class FaultInterceptor(grpc.aio.ServerInterceptor):
    """Turns the errors of one service's methods into statuses."""

    def __init__(
        self,
        service: str,
        ongoing: OngoingCalls,
        stall_s: float,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._prefix = f"/{service}/"
        self._ongoing = ongoing
        self._stall_s = stall_s
        self._observer = observer

    async def intercept_service(
        self,
        continuation: _Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Wrap the method's behaviour together with its deserializer."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith(self._prefix):
            return handler
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                _guard_stream(handler, self._ongoing, self._stall_s, self._observer),
                None,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            _guard_unary(handler, self._ongoing, self._observer), None, handler.response_serializer
        )


def refuse(error: Exception, observer: Observer = NULL_OBSERVER) -> _Handler:
    """Return a handler for any kind of method that reads nothing and fails with the error."""

    async def behaviour(requests: AsyncIterator[bytes], context: _Context) -> None:
        await _abort(context, error, observer)

    return grpc.stream_stream_rpc_method_handler(behaviour)


def _guard_unary(
    handler: _Handler, ongoing: OngoingCalls, observer: Observer
) -> Callable[[bytes, _Context], Awaitable[Any]]:
    async def behaviour(raw: bytes, context: _Context) -> Any:
        try:
            with ongoing.enter():
                return await handler.unary_unary(_parse(handler, raw), context)
        except BaseException as error:
            await _abort(context, error, observer)

    return behaviour


def _guard_stream(
    handler: _Handler, ongoing: OngoingCalls, stall_s: float, observer: Observer
) -> Callable[[bytes, _Context], Awaitable[None]]:
    async def behaviour(raw: bytes, context: _Context) -> None:
        try:
            with ongoing.enter():
                responses = handler.unary_stream(_parse(handler, raw), context)
                async with aclosing(responses):
                    await _write(responses, context, stall_s)
        except BaseException as error:
            await _abort(context, error, observer)

    return behaviour


async def _write(responses: AsyncIterable[Any], context: _Context, stall_s: float) -> None:
    """Write responses until they end or the caller leaves.

    Raises:
        ReaderStalledError: writing a response took `stall_s` seconds.
    """
    clock = asyncio.get_running_loop().time
    try:
        # One rescheduled timeout for all writes is cheaper than one for each.
        async with asyncio.timeout(None) as limit:
            is_first = True
            async for response in responses:
                # Send the metadata apart from the first message: if that write timed out,
                # gRPC would send the metadata again, and never the status.
                if is_first:
                    await context.send_initial_metadata(())
                    is_first = False
                limit.reschedule(clock() + stall_s)
                await context.write(response)
                limit.reschedule(None)
    except TimeoutError:
        if not limit.expired():
            raise
        raise ReaderStalledError(stall_s) from None
    except grpc.aio.InternalError:
        # The caller left during the write.
        context.set_code(grpc.StatusCode.CANCELLED)  # for tracing


def _parse(handler: _Handler, raw: bytes) -> Any:
    try:
        request = handler.request_deserializer(raw)
    except DecodeError:
        raise InvalidRequestError([MALFORMED]) from None
    refuse_unknown_fields(request)
    return request


async def _abort(context: _Context, error: BaseException, observer: Observer) -> None:
    """End the call with the error's status; re-raise a real cancellation."""
    if isinstance(error, ReaderStalledError):
        observer.reader_stalled()
    if isinstance(error, SafelightError):
        observer.call_failed(reason_of(error))
        await context.abort_with_status(to_status(error))
    task = asyncio.current_task()
    is_leaked = isinstance(error, asyncio.CancelledError) and not (task and task.cancelling())
    if is_leaked or (isinstance(error, Exception) and not isinstance(error, grpc.aio.AbortError)):
        fault = report_fault(error)
        observer.call_failed(reason_of(fault))
        await context.abort_with_status(to_status(fault))
    raise error
