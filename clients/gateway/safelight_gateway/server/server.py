"""The server: uvicorn behind a bounded listener, from start to stop."""

import asyncio
import logging
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import uvicorn
from starlette.types import ASGIApp

from safelight_gateway.server.connections import Connections
from safelight_gateway.server.listener import Listener, bind
from safelight_gateway.server.log_limit import LogLimit
from safelight_gateway.server.protocol import NO_SNIFFING, BoundedProtocol
from safelight_gateway.settings import Settings, TlsSettings
from safelight_settings import TrustedProxies, count_connections

_TICKS_PER_CHECK, _TICKS_PER_SWEEP = 10, 3
_BACKLOG = 512
_RESERVE = 64
"""Descriptors for the service, the log and the event loop."""
_EXIT_FAILURE, _EXIT_LIFESPAN = 1, 3

_log = logging.getLogger("safelight_gateway")


class Server(uvicorn.Server):
    """uvicorn with bounds; reloads certificates, and exits with 0 on a signal."""

    def __init__(
        self,
        settings: Settings,
        app: ASGIApp,
        *,
        on_ready: Callable[[str], None] = lambda url: None,
        log_limit: LogLimit | None = None,
    ) -> None:
        """Prepare to serve an application.

        Args:
            settings: Settings of the gateway.
            app: The application.
            on_ready: Receives the URL once the server listens.
            log_limit: The filter of the log, to report what it has suppressed.

        Raises:
            OSError: a certificate cannot be read.
        """
        host, _, port = settings.listen.rpartition(":")
        tls = settings.tls
        config = uvicorn.Config(
            app,
            host=host.strip("[]"),
            port=int(port),
            http="h11",
            ws="none",
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.private_key) if tls else None,
            access_log=False,  # its lines would contain file names
            server_header=False,
            proxy_headers=False,
            headers=[NO_SNIFFING],
            # `Connections` ends idle connections; uvicorn's own time-out misses some.
            timeout_keep_alive=round(settings.connections.idle_s) + 1,
            log_config=None,
            log_level="warning" if settings.log_level == "info" else settings.log_level,
            timeout_graceful_shutdown=round(settings.grace_s),
        )
        config.load()  # so that unreadable certificates fail here, as settings
        super().__init__(config)
        self._tls = tls
        self._versions = _versions(tls)
        self._host = host
        self._on_ready = on_ready
        self._log_limit = log_limit
        wanted = settings.connections.max_count
        capacity = count_connections(wanted, _RESERVE)
        if capacity < wanted:
            _log.warning("the limit on open files allows %d connections only", capacity)
        self._connections = Connections(
            settings.connections, TrustedProxies(settings.trusted_proxies), capacity
        )

    @property
    def url(self) -> str:
        """URL that it listens on, without a trailing slash."""
        port = self.servers[0].sockets[0].getsockname()[1]
        return f"{'https' if self._tls else 'http'}://{self._host}:{port}"

    async def run_until_stopped(self) -> None:
        """Serve until SIGTERM or SIGINT; a second one exits at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_IGN:
                continue
            loop.add_signal_handler(number, self.handle_exit, signal.SIGINT, None)
        await self.serve()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `run_until_stopped`; uvicorn would raise them again on exit."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Bind, and begin to accept."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            sys.exit(_EXIT_LIFESPAN)
        try:
            bound = await bind(self.config.host, self.config.port, _BACKLOG)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            _log.error("cannot listen on %s:%d: %s", self._host, self.config.port, reason)
            await self.lifespan.shutdown()
            sys.exit(_EXIT_FAILURE)
        listeners = [self._listen(each) for each in bound]
        self.servers = cast("list[asyncio.base_events.Server]", listeners)
        self.started = True
        self._on_ready(self.url)

    def _listen(self, bound: socket.socket) -> Listener:
        def make_protocol(on_closed: Callable[[], None]) -> asyncio.Protocol:
            return BoundedProtocol(
                self._connections, on_closed, self.config, self.server_state, self.lifespan.state
            )

        return Listener(bound, self._connections, make_protocol, self.config.ssl)

    async def on_tick(self, counter: int) -> bool:
        """Enforce time limits, and reload changed certificates; called ten times a second."""
        if counter % _TICKS_PER_SWEEP == 0:
            self._connections.sweep()
        if counter % _TICKS_PER_CHECK == 0:
            if self._log_limit is not None:
                self._log_limit.report()
            if _versions(self._tls) != self._versions:
                self._versions = _versions(self._tls)
                self._reload_certificates()
        return await super().on_tick(counter)

    def _reload_certificates(self) -> None:
        """Load the files for new connections, or keep the previous certificates."""
        assert self._tls is not None
        files = self._tls.certificate, self._tls.private_key
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*files)
            assert self.config.ssl is not None
            self.config.ssl.load_cert_chain(*files)
        except (OSError, ValueError):
            _log.exception("cannot load the new certificate; the previous one stays in use")


def _versions(tls: TlsSettings | None) -> tuple[int, ...]:
    """Return the modification times of the files."""
    files = (tls.certificate, tls.private_key) if tls is not None else ()
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
