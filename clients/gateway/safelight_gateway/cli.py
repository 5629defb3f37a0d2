"""The command `safelight-gateway`: load the settings, then serve until a signal."""

import asyncio
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, cast

import typer

from safelight_gateway.app import build_app
from safelight_gateway.server.log_limit import LogLimit
from safelight_gateway.server.server import Server
from safelight_gateway.settings import Settings, load_settings
from safelight_gateway.version import __version__
from safelight_settings import (
    LogWriter,
    announce,
    open_standard_streams,
    raise_descriptor_limit,
)

_EXIT_FAILURE, _EXIT_USAGE = 1, 2

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

    The TOML file or SAFELIGHT_GATEWAY_... environment variables can set
    everything else. Options take precedence over variables, and variables over
    the file.
    """
    given = {"listen": listen, "target": target, "root_path": root_path}
    try:
        settings = load_settings({k: v for k, v in given.items() if v is not None}, config)
        open_standard_streams()
        log_writer, log_limit = _configure_logs(settings)
        raise_descriptor_limit()
        server = Server(settings, build_app(settings), on_ready=_announce, log_limit=log_limit)
    except (ValueError, OSError) as error:
        _fail(str(error), _EXIT_USAGE)
    with suppress(SystemExit):  # from uvicorn, after it has logged that it cannot bind
        # The runner stays open: its end would bring back the default handlers of signals.
        asyncio.Runner().run(server.run_until_stopped())
    log_writer.close()
    os._exit(0 if server.started else _EXIT_FAILURE)


def _announce(url: str) -> None:
    announce(f"Safelight's gateway is ready on {url}")


def _configure_logs(settings: Settings) -> tuple[LogWriter, LogLimit]:
    writer = LogWriter()
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        level=settings.log_level.upper(),
        stream=cast(TextIO, writer),
    )
    logging.captureWarnings(True)
    limit = LogLimit()
    if settings.log_level != "debug":
        for handler in logging.getLogger().handlers:
            handler.addFilter(limit)
    writer.on_dropped = lambda count: _log.warning("%d log lines were dropped", count)
    return writer, limit


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"safelight-gateway: {message}", err=True)
    raise typer.Exit(code)
