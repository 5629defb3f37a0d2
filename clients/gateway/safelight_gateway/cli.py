"""The command `safelight-gateway`: load the settings, then serve until a signal."""

import asyncio
import logging
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, cast

import typer
import uvicorn

from safelight_gateway.app import build_app
from safelight_gateway.settings import Settings, TlsSettings, load_settings
from safelight_gateway.version import __version__
from safelight_settings import LogWriter, announce, open_standard_streams

_EXIT_FAILURE, _EXIT_USAGE = 1, 2
_TICKS_PER_CHECK = 10
_KEEP_ALIVE_S = 75
"""Longer than clients and proxies keep idle connections, so that none reuses a closed one."""

_log = logging.getLogger("safelight_gateway")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command."""
    app(prog_name="safelight-gateway")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"safelight-gateway {__version__}")
        raise typer.Exit


@app.command()
def serve(
    listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT to listen on. Port 0 picks a free one.", show_default=False),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="gRPC target of the service.", show_default=False)
    ] = None,
    root_path: Annotated[
        str | None,
        typer.Option(help="Path prefix in front of the gateway.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings.", show_default=False)
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Serve the text-to-image APIs of other providers in front of a Safelight service.

    The TOML file or SAFELIGHT_GATEWAY_... environment variables can set everything else.
    Options take precedence over variables, and variables over the file.
    """
    given = {"listen": listen, "target": target, "root_path": root_path}
    try:
        settings = load_settings({k: v for k, v in given.items() if v is not None}, config)
        open_standard_streams()
        log_writer = _configure_logs(settings)
        server = _Server(settings)
    except (ValueError, OSError) as error:
        _fail(str(error), _EXIT_USAGE)
    with suppress(SystemExit):  # from uvicorn, after it has logged that it cannot bind
        # The runner stays open: its end would bring back the default handlers of signals.
        asyncio.Runner().run(server.run_until_stopped())
    log_writer.close()
    os._exit(0 if server.started else _EXIT_FAILURE)


def _configure_logs(settings: Settings) -> LogWriter:
    writer = LogWriter()
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=settings.log_level.upper(),
        stream=cast(TextIO, writer),
    )
    logging.captureWarnings(True)
    writer.on_dropped = lambda count: _log.warning("%d log lines were dropped", count)
    return writer


class _Server(uvicorn.Server):
    """uvicorn that prints its address, reloads certificates and exits with 0 on a signal."""

    def __init__(self, settings: Settings) -> None:
        host, _, port = settings.listen.rpartition(":")
        tls = settings.tls
        config = uvicorn.Config(
            build_app(settings),
            host=host.strip("[]"),
            port=int(port),
            ssl_certfile=str(tls.certificate) if tls else None,
            ssl_keyfile=str(tls.private_key) if tls else None,
            access_log=False,  # its lines would contain file names
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            log_config=None,
            log_level="warning" if settings.log_level == "info" else settings.log_level,
            timeout_graceful_shutdown=round(settings.grace_s),
        )
        config.load()  # so that unreadable certificates fail here, as settings
        super().__init__(config)
        self._tls = tls
        self._versions = _versions(tls)
        self._host = host

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
        """Bind, then print the ready line."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            scheme = "https" if self._tls else "http"
            announce(f"Safelight's gateway is ready on {scheme}://{self._host}:{port}")

    async def on_tick(self, counter: int) -> bool:
        """Reload changed certificates; uvicorn calls this ten times a second."""
        if counter % _TICKS_PER_CHECK == 0 and _versions(self._tls) != self._versions:
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


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"safelight-gateway: {message}", err=True)
    raise typer.Exit(code)
