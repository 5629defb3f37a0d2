"""Thread clock: a clock that a test sets for its own thread alone.

Servers of other tests run in other threads. With a clock hours ahead, the timers of their event
loops would wait for hours.
"""

import threading
import time
from collections.abc import Callable

import pytest


def set_clock(patch: pytest.MonkeyPatch, read: Callable[[], float]) -> None:
    """Make time.monotonic call `read` in this thread."""
    own_thread, real = threading.get_ident(), time.monotonic

    def monotonic() -> float:
        return read() if threading.get_ident() == own_thread else real()

    patch.setattr(time, "monotonic", monotonic)
