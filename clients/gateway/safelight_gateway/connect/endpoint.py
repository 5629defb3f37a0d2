"""The endpoint: answers Connect and gRPC-Web, in protobuf and JSON."""

from http import HTTPStatus

from connectrpc.compat import google_protobuf_binary_codec
from connectrpc.server import ConnectASGIApplication
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from safelight_gateway.connect.errors import connect_errors
from safelight_gateway.connect.json_codec import JsonCodec
from safelight_gateway.connect.relay import CALL, SERVICE, endpoints
from safelight_gateway.edge.bodies import read_body
from safelight_gateway.edge.call import Call
from safelight_gateway.state import AppState

_NOT_HERE = {
    "application/grpc": "gRPC needs HTTP/2: call the service itself",
    "application/grpc-web-text": "send gRPC-Web in binary, as application/grpc-web+proto",
}
"""Answers to what connectrpc cannot serve here, by the begin of the content type."""


class _Application(ConnectASGIApplication[None]):
    @property
    def path(self) -> str:
        return f"/{SERVICE.full_name}"


class ConnectEndpoint:
    """ASGI application of all routes: bounds the bodies of connectrpc's application."""

    def __init__(self, state: AppState) -> None:
        self._state = state
        self._limit_bytes = state.settings.max_body_kib * 1024
        self._application = _Application(
            service=None,
            endpoints=lambda _: endpoints(),
            read_max_bytes=self._limit_bytes,
            compressions=(),  # images are compressed already, and bodies could expand
            codecs=(google_protobuf_binary_codec(), JsonCodec()),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        content_type = request.headers.get("content-type", "").partition("+")[0].strip()
        if explanation := _NOT_HERE.get(content_type):
            refusal = PlainTextResponse(explanation, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
            await refusal(scope, receive, send)
            return
        CALL.set(Call(self._state, request, b""))
        # connectrpc fails on others, and reads none that need them.
        headers = [(name, value) for name, value in scope["headers"] if value.isascii()]
        await self._application(
            {**scope, "headers": headers},
            self._bounded(request),
            send,
        )

    def _bounded(self, request: Request) -> Receive:
        """Return the `receive` of a request that reads its body whole and within bounds."""
        has_read = False

        async def receive() -> Message:
            nonlocal has_read
            if has_read:
                return await request.receive()
            has_read = True
            with connect_errors():
                try:
                    body = await read_body(request, self._limit_bytes)
                except ClientDisconnect:
                    return {"type": "http.disconnect"}
            return {"type": "http.request", "body": body, "more_body": False}

        return receive
