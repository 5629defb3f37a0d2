"""Standard streams: make them safe for a program that runs unattended."""

import os
import threading
from contextlib import suppress

_NUMBERS = (0, 1, 2)
_LONGEST_PRINT_S = 0.2


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
    """Print a line to standard output, if it can be written.

    A full pipe that nothing reads holds up the caller for a moment only.
    """
    printing = threading.Thread(target=_print, args=(line,), daemon=True)
    printing.start()
    printing.join(_LONGEST_PRINT_S)


def _print(line: str) -> None:
    with suppress(OSError):
        print(line, flush=True)
