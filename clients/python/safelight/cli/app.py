"""The commands."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from safelight._client.async_client import AsyncClient
from safelight._client.base_client import BaseClient
from safelight._client.client import Client
from safelight._client.connection import Tls
from safelight._version import __version__
from safelight.cli.display import LogDisplay, TerminalDisplay
from safelight.cli.exits import EPILOG, ExitCode, exit_code_of, explain, explain_argument
from safelight.cli.models_table import models_table
from safelight.cli.output import Output
from safelight.cli.records import error_record, event_record, model_record
from safelight.cli.verification import EPILOG as VERIFY_EPILOG
from safelight.cli.verification import verify
from safelight.errors import SafelightError
from safelight.events import Image

_Client = TypeVar("_Client", bound=BaseClient)

_STDIN = "-"
_TARGET = "127.0.0.1:50051"
_LARGEST_SEED = 2**63 - 1
_PREVIEW_SIDE_PX = 128  # More than the pixels that 24 rows show.

app = typer.Typer(
    help="Generate images with a Safelight service.",
    epilog=EPILOG,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[
    str,
    typer.Option(
        envvar="SAFELIGHT_TARGET",
        help="Address of the service, HOST or HOST:PORT; the port for gRPC.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="File with the token to send; without it, the environment variable "
        "SAFELIGHT_TOKEN is used.",
    ),
]
UseTls = Annotated[bool, typer.Option("--tls", help="Encrypt the connection.")]
CaFile = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, help="PEM file with the authorities to trust; implies --tls."
    ),
]
Timeout = Annotated[float | None, typer.Option(min=0, help="Seconds after which to give up.")]
UseJson = Annotated[bool, typer.Option("--json", help="Print lines of JSON to standard output.")]


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        with _failures(is_json=False):
            print(f"safelight {__version__}", flush=True)
        raise typer.Exit


@app.command(epilog=EPILOG)
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw; - reads it from standard input.")],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write; its suffix (.png, .jpg, .jpeg, .webp) is the format. "
            "- is standard output.",
            show_default="safelight-SEED.png",
        ),
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the image should not show.")
    ] = None,
    height: Annotated[int | None, typer.Option(min=1, help="Height in pixels.")] = None,
    width: Annotated[int | None, typer.Option(min=1, help="Width in pixels.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Number of denoising steps.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(help="How strongly the image follows the prompt.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Scheduler to denoise with.")] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[:SCALE]", help="Adapter (LoRA) of the model to apply; may be repeated."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=_LARGEST_SEED, help="Seed of the noise, to get the same image again."
        ),
    ] = None,
    step_reuse: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of steps to reuse earlier outputs for: faster, less exact."
        ),
    ] = None,
    count: Annotated[
        int,
        typer.Option(min=1, help="Number of images; the files are numbered: out-0.png, ..."),
    ] = 1,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Quality of JPEG and WebP.")
    ] = None,
    wait_for_model: Annotated[
        bool, typer.Option(help="Whether to wait for a model that is not loaded yet.")
    ] = True,
    preview: Annotated[
        bool, typer.Option("--preview", help="Show the image develop, in a terminal.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
    json: UseJson = False,
    target: Target = _TARGET,
    token_file: TokenFile = None,
    tls: UseTls = False,
    ca_file: CaFile = None,
    timeout: Timeout = None,
) -> None:
    """Generate images from a prompt.

    Progress goes to standard error. Standard output gets the names of the files,
    or with --json each event of the generation as a line of JSON.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False, markup=False)
    has_display = console.is_interactive and not quiet
    has_previews = preview and has_display
    with _usage_errors():
        files = Output(output, count)
        if json and files.is_stdout:
            raise ValueError("--json and --output - both take standard output")
        client = _connect(Client, target, token_file, tls, ca_file, timeout)
        generation = client.generate(
            _read_prompt() if prompt == _STDIN else prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            model=model,
            scheduler=scheduler,
            adapters=_read_adapters(adapter or []),
            seed=seed,
            step_reuse=step_reuse,
            wait_for_model=wait_for_model,
            output_mime_type=files.mime_type,
            output_quality=quality,
            image_count=count,
            preview_every=1 if has_previews else None,
            preview_max_side_px=_PREVIEW_SIDE_PX if has_previews else None,
        )
    display = TerminalDisplay(console, has_previews) if has_display else LogDisplay(console)
    with _failures(is_json=json), client, generation, display:
        for event in generation:
            with suppress(OSError):  # nothing reads standard error
                display.show(event)
            path = None
            if isinstance(event, Image):
                path = files.write(event)
                if event.is_flagged:
                    console.print(
                        f"image {event.image_index} is black: the safety checker flagged it"
                    )
            if json:
                print(event_record(event, path), flush=True)
            elif path and not files.is_stdout:
                print(path, flush=True)


@app.command(epilog=EPILOG)
def models(
    json: UseJson = False,
    target: Target = _TARGET,
    token_file: TokenFile = None,
    tls: UseTls = False,
    ca_file: CaFile = None,
    timeout: Timeout = None,
) -> None:
    """List the models of the service: their state, defaults and limits."""
    with _usage_errors():
        client = _connect(Client, target, token_file, tls, ca_file, timeout)
    with _failures(is_json=json), client:
        listed = client.list_models()
        if json:
            for model in listed:
                print(model_record(model), flush=True)
        else:
            Console(highlight=False, markup=False).print(models_table(listed))


@app.command()
def mcp(
    target: Target = _TARGET,
    token_file: TokenFile = None,
    tls: UseTls = False,
    ca_file: CaFile = None,
    timeout: Timeout = None,
) -> None:
    """Serve the Model Context Protocol on standard input and output.

    The tools are generate_image and list_models. Programs with a language model
    start this command themselves, and it ends when its standard input does. The
    extra `mcp` installs its requirements.
    """
    try:
        from safelight.mcp.server import McpServer
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in ("anyio", "mcp", "mcp_types", "pydantic"):
            raise
        sys.exit("safelight: mcp needs more packages: pip install 'safelight[mcp]'")
    with _usage_errors():
        client = _connect(AsyncClient, target, token_file, tls, ca_file, timeout)
    asyncio.run(McpServer(client).run())


app.command(epilog=VERIFY_EPILOG)(verify)


def _read_prompt() -> str:
    """Read the prompt from standard input.

    Raises:
        ValueError: it is closed or not UTF-8.
    """
    if sys.stdin is None:
        raise ValueError("prompt must be given, since standard input is closed")
    try:
        return sys.stdin.read().strip()
    except UnicodeDecodeError:
        raise ValueError("prompt must be UTF-8") from None


def _read_adapters(uses: list[str]) -> dict[str, float | None]:
    """Read adapters that are given as NAME or NAME:SCALE.

    Raises:
        ValueError: a scale is no number, or a name is given twice.
    """
    adapters: dict[str, float | None] = {}
    for use in uses:
        name, colon, scale = use.partition(":")
        if name in adapters:
            raise ValueError(f"adapter {name} is given twice")
        try:
            adapters[name] = float(scale) if colon else None
        except ValueError:
            raise ValueError(f"adapter must be NAME or NAME:SCALE, not {use}") from None
    return adapters


def _connect(
    kind: Callable[..., _Client],
    target: str,
    token_file: Path | None,
    tls: bool,
    ca_file: Path | None,
    timeout: float | None,
) -> _Client:
    token = token_file.read_text() if token_file else os.environ.get("SAFELIGHT_TOKEN", "")
    return kind(
        target,
        token=token.strip() or None,
        tls=Tls(root_certificates=ca_file.read_bytes()) if ca_file else tls,
        timeout=timeout,
    )


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Show a ValueError as typer shows wrong arguments."""
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(explain_argument(error)) from error


@contextmanager
def _failures(*, is_json: bool) -> Iterator[None]:
    """Explain a failure and exit with its code."""
    console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        yield
    except SafelightError as error:
        _report(console, explain(error))
        if is_json:
            print(error_record(error), flush=True)
        raise typer.Exit(exit_code_of(error)) from error
    except BrokenPipeError:
        raise  # The reader of standard output has gone; typer exits quietly.
    except OSError as error:
        _report(console, f"cannot write: {error}")
        raise typer.Exit(ExitCode.FAILED) from error
    except KeyboardInterrupt as error:
        _report(console, "cancelled", style="")
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def _report(console: Console, message: str, *, style: str = "red") -> None:
    """Print a message, if standard error can be written."""
    with suppress(OSError):
        console.print(message, style=style)
