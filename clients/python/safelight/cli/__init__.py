"""The command line `safelight`; the extra `safelight[cli]` installs its requirements."""

import signal
import sys

_INTERRUPTED = 130


def main() -> None:
    """Run the command line; SIGTERM cancels on the service as SIGINT does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from safelight.cli.app import app
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit("safelight: the command line needs more packages: pip install 'safelight[cli]'")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)
    app(prog_name="safelight")
