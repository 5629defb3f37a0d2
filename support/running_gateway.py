"""Running gateway: a real gateway on its own socket, behind a proxy that records requests."""

import queue
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight_gateway.app import build_app
from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.dialect import Dialect
from safelight_gateway.server.server import Server
from safelight_gateway.settings import Settings, TlsSettings

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


@contextmanager
def run_gateway(
    target: str,
    *,
    dialects: Iterable[Dialect] = DIALECTS,
    certificate: Path | None = None,
    key: Path | None = None,
    trusted_proxies: Sequence[str] = ("127.0.0.1",),
    **settings: Any,
) -> Iterator[RunningGateway]:
    """Run a gateway to the service at `target`, on a free port and in its own thread."""
    if certificate is not None and key is not None:
        settings["tls"] = TlsSettings(certificate=certificate, private_key=key)
    complete = Settings(
        target=target,
        listen=f"{'localhost' if certificate else '127.0.0.1'}:0",
        trusted_proxies=tuple(trusted_proxies),
        grace_s=10,  # ends abandoned streams
        **settings,
    )
    started: queue.SimpleQueue[str] = queue.SimpleQueue()
    server = Server(complete, Recorder(build_app(complete, dialects)), on_ready=started.put)

    def serve() -> None:
        try:
            server.run()
        finally:
            started.put("")

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        url = started.get()
        assert url, "the gateway did not start"
        yield RunningGateway(url)
    finally:
        server.should_exit = True
        thread.join()
