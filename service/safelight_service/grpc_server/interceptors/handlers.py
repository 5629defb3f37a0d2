"""Handlers: other behaviours for the methods of handlers."""

from collections.abc import Callable
from typing import Any

import grpc

Handler = Any
"""grpc.RpcMethodHandler of grpc.aio; gRPC's type stubs describe only the synchronous server."""

Behaviour = Callable[..., Any]

_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}


def behaviour_of(handler: Handler) -> Behaviour:
    """Return the behaviour of a handler of any kind."""
    kind, _ = _KINDS[handler.request_streaming, handler.response_streaming]
    behaviour: Behaviour = getattr(handler, kind)
    return behaviour


def replace_behaviour(
    handler: Handler, behaviour: Behaviour, *, reads_stream: bool | None = None
) -> Handler:
    """Return a handler with another behaviour, which gets a stream of requests if it reads one.

    `reads_stream` is None for a behaviour that gets its requests as that of the handler.
    """
    if reads_stream is None:
        reads_stream = handler.request_streaming
    _, make_handler = _KINDS[reads_stream, handler.response_streaming]
    return make_handler(behaviour, handler.request_deserializer, handler.response_serializer)
