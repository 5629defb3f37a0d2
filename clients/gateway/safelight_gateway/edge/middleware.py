"""The edge middleware: normalizes every request, and completes every response.

It maps path prefixes and host names of providers to the paths of the routes, allows all
origins, gives each request an id, and bounds the memory of bodies and answers.
"""

import re
import uuid
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.edge.bodies import BODY_SPACE, BodySpace
from safelight_gateway.edge.forwarding import Forwarding
from safelight_gateway.edge.unsent import UnsentAnswers
from safelight_gateway.pace import Pace
from safelight_gateway.server.protocol import ABORT
from safelight_gateway.settings import Settings
from safelight_gateway.shares import Shares, holder_of
from safelight_settings import TrustedProxies

ADDRESS, BASE_URL, REQUEST_ID = "safelight.address", "safelight.base_url", "safelight.request_id"
"""Scope keys: address of the client, URL of the gateway as it sees it, and id of the request."""

_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
_EXPOSED = (
    "x-request-id",
    "x-compute-time",
    "x-compute-type",
    "x-ignored-parameters",
    "x-compute-characters",
    "x-error-message",
    "retry-after",
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "grpc-retry-pushback-ms",
    "trailer-grpc-retry-pushback-ms",
)
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_TWO_LENGTHS = JSONResponse(
    {"error": "send either Content-Length, or Transfer-Encoding over HTTP/1.1"},
    HTTPStatus.BAD_REQUEST,
    {"connection": "close"},
)
_LONGEST_WAIT_S = 10.0
"""Longest wait of a request for its turn: clients behind a proxy could pile up any number."""
_TOO_FAST = JSONResponse(
    {"error": "too many requests of your address; try again later"},
    HTTPStatus.TOO_MANY_REQUESTS,
    {"retry-after": f"{_LONGEST_WAIT_S:.0f}"},
)
_FILES = "/files/"
_TARGET = re.compile(r"https://([a-z0-9.-]+)(/.*)")


class EdgeMiddleware:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, settings: Settings, dialects: DialectRegistry) -> None:
        self._app = app
        self._dialects = dialects
        self._exposed = ", ".join((*_EXPOSED, *dialects.id_headers))
        self._root_path = settings.root_path
        self._public_url = settings.public_url
        self._forwarding = Forwarding(TrustedProxies(settings.trusted_proxies))
        self._pace = Pace(settings.connections.requests_per_s, longest_s=_LONGEST_WAIT_S)
        self._bodies = Shares(settings.connections.max_bodies_mib * 2**20)
        self._unsent = UnsentAnswers(settings.connections.max_unsent_mib * 2**20)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = self._forwarding.find_origin(scope, headers)
        prefix = self._root_path if origin.prefix is None else origin.prefix
        holder = holder_of(origin.address)
        space = BodySpace(self._bodies, holder)
        abort = scope.get("state", {}).get(ABORT, _do_nothing)
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = str(uuid.uuid4())
        scope = {
            **scope,
            **self._route(scope, headers, prefix, origin.host),
            "root_path": "",
            ADDRESS: origin.address,
            BASE_URL: self._public_url or f"{origin.scheme}://{origin.host}{prefix}",
            REQUEST_ID: request_id,
            BODY_SPACE: space,
        }

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response = MutableHeaders(scope=message)
                for name, value in self._common_headers(request_id):
                    response.setdefault(name, value)
                await send(message)
            else:
                await self._unsent.send(message, send, holder, abort)

        try:
            if not await self._pace.wait(holder):
                await _TOO_FAST(scope, receive, send_with_headers)
            elif _has_two_lengths(scope, headers):
                await _TWO_LENGTHS(scope, receive, send_with_headers)
            elif scope["method"] == "OPTIONS":
                await _answer_preflight(headers, send_with_headers)
            else:
                await self._app(scope, receive, send_with_headers)
        finally:
            space.release()

    def _route(self, scope: Scope, headers: Headers, prefix: str, host: str) -> dict[str, Any]:
        """Return the scope's path for the routes, whether or not a proxy stripped the prefix."""
        path = scope["path"]
        if prefix and (path == prefix or path.startswith(f"{prefix}/")):
            path = path[len(prefix) :] or "/"
        if (dialect := self._dialects.proxy_at(path.rstrip("/"))) and dialect.proxy:
            target = _TARGET.fullmatch(headers.get(dialect.proxy.header, ""))
            if target and target[1] in dialect.hosts:
                target_path, _, query = target[2].partition("?")
                return {
                    "path": self._path_at(target[1], unquote(target_path)),
                    "query_string": query.encode("latin-1"),
                }
        return {"path": self._path_at(host, path)}

    def _path_at(self, host: str, path: str) -> str:
        """Return the gateway's path for a path that was sent to a host, possibly a provider's."""
        root = self._dialects.root_of(host.partition(":")[0].lower())
        if root is None or path.startswith((_FILES, f"{root}/")):
            return path
        return f"{root}{path}"

    def _common_headers(self, request_id: str) -> Iterable[tuple[str, str]]:
        yield "x-request-id", request_id
        yield "access-control-allow-origin", "*"
        yield "access-control-expose-headers", self._exposed


def _has_two_lengths(scope: Scope, headers: Headers) -> bool:
    """Whether a proxy in front may see another end of the body than the server (RFC 9112, 6.1)."""
    return "transfer-encoding" in headers and (
        "content-length" in headers or scope.get("http_version") == "1.0"
    )


def _do_nothing() -> None:
    """Do nothing, where the server offers no way to end a connection."""


async def _answer_preflight(headers: Headers, send: Any) -> None:
    asked = headers.get("access-control-request-headers", "*")
    answer = [
        (b"access-control-allow-methods", _METHODS.encode()),
        (b"access-control-allow-headers", asked.encode("latin-1")),
        (b"access-control-max-age", b"86400"),
        (b"vary", b"access-control-request-headers"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": answer})
    await send({"type": "http.response.body", "body": b""})
