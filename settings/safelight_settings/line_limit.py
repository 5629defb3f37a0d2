"""Line limit: a bound on log lines that callers can cause."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

_MAX_KINDS = 256


@dataclass(slots=True)
class _Window:
    """Lines of one kind within one interval."""

    began_at: float
    count: int = 0
    suppressed_count: int = 0


class LineLimit:
    """Admits `max_count` lines of a kind each `interval_s` seconds, and counts the others.

    Callers should not be able to choose kinds: beyond 256, the oldest is forgotten. Any thread may
    call it.
    """

    def __init__(
        self,
        max_count: int = 20,
        interval_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_count = max_count
        self._interval_s = interval_s
        self._clock = clock
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        """Windows by kind, the one that began first at the front."""
        self._lock = threading.Lock()

    def admit(self, kind: Hashable) -> Mapping[str, int] | None:
        """Return further fields for a line of a kind, or None to log nothing.

        The fields are empty, or `suppressed`: the number of lines not logged since the last one.
        """
        now = self._clock()
        with self._lock:
            window = self._windows.get(kind)
            if window is None or now - window.began_at >= self._interval_s:
                suppressed_count = window.suppressed_count if window else 0
                window = self._windows[kind] = _Window(now, suppressed_count=suppressed_count)
                self._windows.move_to_end(kind)
                while len(self._windows) > _MAX_KINDS:
                    self._windows.popitem(last=False)
            if window.count >= self._max_count:
                window.suppressed_count += 1
                return None
            window.count += 1
            suppressed_count, window.suppressed_count = window.suppressed_count, 0
        return {"suppressed": suppressed_count} if suppressed_count else {}

    def collect(self) -> list[tuple[Any, int]]:
        """Forget kinds that suppressed lines and whose interval is over; return the numbers."""
        now = self._clock()
        with self._lock:
            over = [
                (kind, window.suppressed_count)
                for kind, window in self._windows.items()
                if window.suppressed_count and now - window.began_at >= self._interval_s
            ]
            for kind, _ in over:
                del self._windows[kind]
        return over
