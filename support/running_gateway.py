"""Running gateway: a real gateway on its own socket, behind a proxy that records requests."""

import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight_gateway.app import build_app
from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.dialect import Dialect
from safelight_gateway.settings import Settings

_SEEN = re.compile(r"(/seen-by/[\w-]+)?(/.*)?")


class Recorder:
    """Reverse proxy that moves a prefix `/seen-by/NAME` from the path into a header.

    `GET /seen-by/NAME/recorded` returns the requests below the prefix since the last such call,
    each as method, path and status. `GET /recorded` returns those without a prefix.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._seen: dict[str, list[tuple[str, str, int]]] = defaultdict(list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or answer with the recorded ones."""
        match = _SEEN.fullmatch(scope["path"]) if scope["type"] == "http" else None
        if match is None:
            await self._app(scope, receive, send)
            return
        prefix, path = match[1] or "", match[2] or "/"
        if path == "/recorded":
            await JSONResponse(self._seen.pop(prefix, []))(scope, receive, send)
            return

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._seen[prefix].append((scope["method"], path, message["status"]))
            await send(message)

        headers = [*scope["headers"]]
        if prefix:
            headers.append((b"x-forwarded-prefix", prefix.encode()))
        await self._app({**scope, "path": path, "headers": headers}, receive, note)


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """Gateway that accepts requests at `url`."""

    url: str


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, has_started: threading.Event) -> None:
        super().__init__(config)
        self._has_started = has_started

    async def startup(self, sockets: Any = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self._has_started.set()


@contextmanager
def run_gateway(
    target: str,
    *,
    dialects: Iterable[Dialect] = DIALECTS,
    certificate: str | None = None,
    key: str | None = None,
    **settings: Any,
) -> Iterator[RunningGateway]:
    """Run a gateway to the service at `target`, on a free port and in its own thread."""
    app = build_app(Settings(target=target, **settings), dialects)
    has_started = threading.Event()
    server = _Server(
        uvicorn.Config(
            Recorder(app),
            host="127.0.0.1",
            port=0,
            log_config=None,
            lifespan="on",
            proxy_headers=False,
            timeout_graceful_shutdown=10,  # as in the command: ends abandoned streams
            ssl_certfile=certificate,
            ssl_keyfile=key,
        ),
        has_started,
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        has_started.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        scheme = "https" if certificate else "http"
        host = "localhost" if certificate else "127.0.0.1"
        yield RunningGateway(f"{scheme}://{host}:{port}")
    finally:
        server.should_exit = True
        thread.join()
