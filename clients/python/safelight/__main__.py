"""The command line, as `python -m safelight`."""

from safelight.cli import main

main()
