"""`python -m safelight` is the command line."""

from safelight.cli import main

main()
