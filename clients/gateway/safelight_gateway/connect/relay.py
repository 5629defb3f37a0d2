"""The relay: calls of the contract, passed on to the service."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import grpc
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.request import RequestContext
from connectrpc.server import Endpoint
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from safelight import ServiceError
from safelight.errors import service_errors
from safelight.v1 import text_to_image_pb2 as pb

from safelight_gateway.connect.errors import connect_errors
from safelight_gateway.edge.call import Call

SERVICE = pb.DESCRIPTOR.services_by_name["TextToImageService"]
CALL: ContextVar[Call] = ContextVar("call")
"""The HTTP request that is being answered."""

_TRAILERS = ("x-cache", "grpc-retry-pushback-ms")
"""Trailing metadata of the service that callers get."""

_Context = RequestContext[Any, Any]


def endpoints() -> Mapping[str, Any]:
    """Return the endpoints of the contract's methods, by path."""
    return {f"/{SERVICE.full_name}/{method.name}": _endpoint(method) for method in SERVICE.methods}


def _endpoint(method: MethodDescriptor) -> Endpoint[Any, Any]:
    streams = method.server_streaming
    info: MethodInfo[Any, Any] = MethodInfo(
        name=method.name,
        service_name=SERVICE.full_name,
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        idempotency_level=IdempotencyLevel.UNKNOWN,
        stream_type=StreamType.SERVER_STREAM if streams else StreamType.UNARY,
    )
    if streams:
        return Endpoint.server_stream(info, _stream(method.name))
    return Endpoint.unary(info, _unary(method.name))


def _unary(method: str) -> Callable[[Message, _Context], Awaitable[Message]]:
    async def respond(request: Message, context: _Context) -> Message:
        with connect_errors(), _trailers_of_failures(context):
            call = CALL.get()
            async with call.state.callers.lease(call.context) as client:
                response: Message = await client.call(
                    getattr(client.stub, method),
                    request,
                    metadata=call.context.call_metadata,
                    timeout=_timeout_s(call, context),
                )
            return response

    return respond


def _stream(method: str) -> Callable[[Message, _Context], AsyncGenerator[Message, None]]:
    async def respond(request: Message, context: _Context) -> AsyncGenerator[Message, None]:
        with connect_errors(), _trailers_of_failures(context):
            call = CALL.get()
            state = call.state
            metadata = (*call.context.call_metadata, *call.flag_metadata)
            holder = await state.callers.attribute(call.context)
            with state.pool.lease(holder) as client, service_errors():
                # Unlike the native routes, it resumes nothing: callers get the contract as it is.
                events = getattr(client.stub, method)(
                    request, metadata=metadata, timeout=_timeout_s(call, context)
                )
                try:
                    async for event in events:
                        yield event
                        await state.event_pace.wait(holder)
                    _pass_trailers(await events.trailing_metadata(), context)
                finally:
                    events.cancel()  # the caller may have left

    return respond


@contextmanager
def _trailers_of_failures(context: _Context) -> Iterator[None]:
    try:
        yield
    except ServiceError as error:
        if isinstance(error.__cause__, grpc.RpcError):
            _pass_trailers(cast(grpc.Call, error.__cause__).trailing_metadata(), context)
        raise


def _pass_trailers(metadata: Iterable[tuple[str, Any]] | None, context: _Context) -> None:
    for name, value in metadata or ():
        if name in _TRAILERS:
            context.response_trailers[name] = value


def _timeout_s(call: Call, context: _Context) -> float:
    longest_s = call.context.timeout_s(call.state.settings.max_request_s)
    timeout_ms = context.timeout_ms
    return longest_s if timeout_ms is None else min(longest_s, max(0.0, timeout_ms / 1e3))
