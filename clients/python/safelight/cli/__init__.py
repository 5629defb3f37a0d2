"""The command line `safelight`; the extra `safelight[cli]` installs its requirements."""

import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from safelight.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit("safelight: the command line needs more packages: pip install 'safelight[cli]'")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    app(prog_name="safelight")
