"""A clock that a test sets, for its own thread alone.

Servers of other tests run in threads of the same process. Their event loops would plan timers by
a clock that is hours ahead, and wait for hours.
"""

import threading
import time
from collections.abc import Callable

import pytest


def set_clock(patch: pytest.MonkeyPatch, read: Callable[[], float]) -> None:
    """Let time.monotonic return what `read` returns, in this thread."""
    own_thread, real = threading.get_ident(), time.monotonic

    def monotonic() -> float:
        return read() if threading.get_ident() == own_thread else real()

    patch.setattr(time, "monotonic", monotonic)
