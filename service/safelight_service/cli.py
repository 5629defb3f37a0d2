"""The command `safelight-service`: load the settings, then serve until a signal."""

import asyncio
import contextlib
import gc
import json
import os
import secrets
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import structlog
import typer
from pydantic import ValidationError

from safelight_service.auth.tokens import Caller, digest_token
from safelight_service.core.errors import ModelFailedError
from safelight_service.library_variables import choose_variables
from safelight_service.logs import configure_logs
from safelight_service.settings import ConfigurationError, Settings, load_settings
from safelight_service.version import __version__
from safelight_settings import (
    announce,
    describe_problems,
    open_standard_streams,
    raise_descriptor_limit,
)

_EXIT_FAILURE, _EXIT_USAGE = 1, 2
_TOKEN_BYTES = 32

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> None:
    """Run the command."""
    app(prog_name="safelight-service")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"safelight-service {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT to listen on. Port 0 picks a free one.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings.", show_default=False)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="Where the engines run: local, or ray, a Ray cluster.", show_default=False
        ),
    ] = None,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Serve text-to-image models over gRPC.

    The TOML file or SAFELIGHT_... environment variables can set everything
    else. Options take precedence over variables, and variables over the file.
    """
    if context.invoked_subcommand is not None:
        return
    try:
        options = {"listen": listen, "backend": backend}
        given = {name: value for name, value in options.items() if value is not None}
        settings = load_settings(given, config)
    except ConfigurationError as error:
        _fail(str(error), _EXIT_USAGE)
    open_standard_streams()
    log_writer = configure_logs(settings)
    os.environ |= choose_variables(os.environ)
    raise_descriptor_limit()
    # The runner stays open: its end would bring back the default handlers of signals.
    code = asyncio.Runner().run(_serve(settings))
    log_writer.close()
    # Not sys.exit, which waits for threads: one may hang on the device or load a model.
    os._exit(code)


ray_app = typer.Typer(help="Manage the engines on a Ray cluster.", no_args_is_help=True)
app.add_typer(ray_app, name="ray")


@ray_app.command()
def deploy(
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings.", show_default=False)
    ] = None,
) -> None:
    """Start the engines of all pools, or update them, and wait until they are ready.

    Serve replaces engines one by one; running generations continue.
    """
    try:
        settings = load_settings({}, config)
    except ConfigurationError as error:
        _fail(str(error), _EXIT_USAGE)
    try:
        from safelight_service.fleet.ray_serve import deployment
    except ImportError:
        _fail("ray is not installed; install safelight-service[ray]", _EXIT_USAGE)
    try:
        deployment.deploy(settings)
    except (ConnectionError, RuntimeError) as error:
        _fail(f"ray deploy: {error}", _EXIT_FAILURE)
    names = ", ".join(pool.name for pool in settings.ray.pools)
    typer.echo(f"The engines are ready: {names}")


provenance_app = typer.Typer(help="Mark images as generated.", no_args_is_help=True)
app.add_typer(provenance_app, name="provenance")


@provenance_app.command()
def dev_certificate(
    folder: Annotated[Path, typer.Argument(help="Folder for the files.")] = Path("provenance"),
) -> None:
    """Create a certificate for development, which no one trusts.

    Writes certificate.pem, private_key.pem and authority.pem, and prints the
    settings that use them.
    """
    try:
        from safelight_service.provenance import dev_certificate as files
    except ImportError:
        _fail("install safelight-service[provenance]", _EXIT_USAGE)
    try:
        files.write_dev_certificate(folder)
    except OSError as error:
        _fail(f"cannot write {error.filename}: {error.strerror}", _EXIT_FAILURE)
    paths = {"certificate": files.CERTIFICATE, "private_key": files.PRIVATE_KEY}
    typer.echo("[provenance]")
    for name, file in paths.items():
        typer.echo(f"{name} = {json.dumps(str(folder.absolute() / file))}")


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Name of the model in the settings.")],
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings.", show_default=False)
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Scheduler; the model's own by default.", show_default=False)
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=4, help="Steps; the model's default.", show_default=False),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="File with a prompt on each line.", show_default=False)
    ] = None,
) -> None:
    """Measure which steps of a model can be reused at the least cost.

    Takes as many images as there are steps, for each prompt. The service reads
    the result when it loads the model.
    """
    try:
        settings = load_settings({}, config)
        texts = prompts.read_text("utf-8").splitlines() if prompts is not None else ()
    except (ConfigurationError, OSError, UnicodeError) as error:
        _fail(str(error), _EXIT_USAGE)
    os.environ |= choose_variables(os.environ)
    from safelight_service import app as root

    chosen = [text for text in texts if text.strip()]
    try:
        file, used = root.calibrate(settings, model, chosen, scheduler, steps)
    except ConfigurationError as error:
        _fail(str(error), _EXIT_USAGE)
    except Exception as error:
        _fail(f"calibrate: {error}", _EXIT_FAILURE)
    typer.echo(f"Measured {model} with {used}; stored in {file}")


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Name of the token in limits and messages.")],
) -> None:
    """Create a token.

    Prints the token to standard error, and its entry for the tokens file to
    standard output. The entry holds only a digest, so the token cannot be shown
    again.
    """
    secret = secrets.token_urlsafe(_TOKEN_BYTES)
    try:
        caller = Caller(name=name, sha256=digest_token(secret))
    except ValidationError as error:
        _fail("\n".join(describe_problems(error, Caller)), _EXIT_USAGE)
    typer.echo(secret, err=True)
    typer.echo(f'[[tokens]]\nname = "{caller.name}"\nsha256 = "{caller.sha256}"')


async def _serve(settings: Settings) -> int:
    """Serve until a signal or until the device is lost; return the exit code."""
    # Imported here: torch takes seconds, which --help and usage errors need not wait for.
    with kept_for_good():
        from safelight_service.app import import_backend, make_server
        from safelight_service.grpc_server.server import AddressInUseError

        import_backend(settings)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, _request_stop, stop)
    log = structlog.get_logger()
    try:
        server = make_server(settings)
    except ConfigurationError as error:
        return _report(str(error), _EXIT_USAGE)
    except ConnectionError as error:
        return _report(str(error), _EXIT_FAILURE)
    try:
        if await _ends_before(stop, server.start()):
            announce(f"Safelight is ready on {server.address}")
            await _ends_before(stop, server.wait_until_lost())
        log.info("stopping", grace_s=settings.grace_s)
    except (AddressInUseError, ModelFailedError) as error:
        return _report(str(error), _EXIT_FAILURE)
    finally:
        await server.stop()
    log.info("stopped")
    return _EXIT_FAILURE if server.is_lost else 0


@contextlib.contextmanager
def kept_for_good() -> Iterator[None]:
    """Exempt objects created in this block from garbage collection.

    Scanning what torch and diffusers import would take a sixth of the start-up time, and later
    stop every thread for a third of a second at each full collection.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


async def _ends_before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Run `work` until it ends or `stop` is set; return whether it ended."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            await working
        return working.done()
    finally:
        working.cancel()
        stopping.cancel()


def _request_stop(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(_EXIT_FAILURE)  # the second signal
    stop.set()


def _report(message: str, code: int) -> int:
    """Print an error; return the exit code."""
    with contextlib.suppress(OSError):
        typer.echo(f"safelight-service: {message}", err=True)
    return code


def _fail(message: str, code: int) -> NoReturn:
    raise typer.Exit(_report(message, code))
