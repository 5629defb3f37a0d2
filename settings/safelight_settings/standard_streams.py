"""Standard streams: make them safe for a program that runs unattended."""

import os
from contextlib import suppress

_NUMBERS = (0, 1, 2)


def open_standard_streams() -> None:
    """Open /dev/null for standard streams that are closed.

    A file or a connection would otherwise take their numbers, and receive what is printed.
    """
    for number in _NUMBERS:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def announce(line: str) -> None:
    """Print a line to standard output, if it can be written."""
    with suppress(OSError):
        print(line, flush=True)
