"""The edge middleware: normalizes every request, and completes every response.

It maps path prefixes and host names of providers to the paths of the routes, allows all
origins, and gives each request an id.
"""

import re
import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.settings import Settings

BASE_URL, REQUEST_ID = "safelight.base_url", "safelight.request_id"
"""Scope keys: URL of the gateway as the caller sees it, and id of the request."""

_METHODS = "GET, POST, PUT, DELETE, OPTIONS"
_EXPOSED = (
    "x-request-id",
    "x-compute-time",
    "x-compute-type",
    "x-ignored-parameters",
    "x-compute-characters",
    "x-error-message",
    "retry-after",
)
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:.]+\](:\d{1,5})?", re.ASCII)
_PREFIX = re.compile(r"(/[\w.~-]+)+", re.ASCII)
_REQUEST_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        prefix = self._prefix(headers)
        host = _first(headers.get("x-forwarded-host")) or headers.get("host", "")
        host = host if _HOST.fullmatch(host) else "localhost"
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = str(uuid.uuid4())
        scope = {
            **scope,
            **self._route(scope, headers, prefix, host),
            "root_path": "",
            BASE_URL: self._public_url or f"{_scheme(scope, headers)}://{host}{prefix}",
            REQUEST_ID: request_id,
        }

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response = MutableHeaders(scope=message)
                for name, value in self._common_headers(request_id):
                    response.setdefault(name, value)
            await send(message)

        if scope["method"] == "OPTIONS":
            await _answer_preflight(headers, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _prefix(self, headers: Headers) -> str:
        forwarded = _first(headers.get("x-forwarded-prefix")).rstrip("/")
        return forwarded if _PREFIX.fullmatch(forwarded) else self._root_path

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


def _scheme(scope: Scope, headers: Headers) -> str:
    forwarded = _first(headers.get("x-forwarded-proto")).lower()
    return forwarded if forwarded in ("http", "https") else str(scope.get("scheme", "http"))


def _first(value: str | None) -> str:
    """Return the value from the outermost proxy."""
    return (value or "").partition(",")[0].strip()


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
