"""Line limit: a bound on log lines that callers can cause."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_MAX_COUNT = 20
_INTERVAL_S = 10.0


@dataclass(slots=True)
class _Window:
    """Lines of one kind within one interval."""

    began_at: float
    count: int = 0
    suppressed_count: int = 0


class LineLimit:
    """Admits `max_count` lines of a kind each `interval_s` seconds, and counts the others.

    Kinds must be few: a caller must not be able to choose them. Any thread may call it.
    """

    def __init__(
        self,
        max_count: int = _MAX_COUNT,
        interval_s: float = _INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_count = max_count
        self._interval_s = interval_s
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._lock = threading.Lock()

    def admit(self, kind: str) -> Mapping[str, int] | None:
        """Return further fields for a line of a kind, or None to log nothing.

        The fields are empty, or `suppressed`: the number of lines not logged since the last one.
        """
        now = self._clock()
        with self._lock:
            window = self._windows.get(kind)
            if window is None or now - window.began_at >= self._interval_s:
                suppressed_count = window.suppressed_count if window else 0
                window = self._windows[kind] = _Window(now, suppressed_count=suppressed_count)
            if window.count >= self._max_count:
                window.suppressed_count += 1
                return None
            window.count += 1
            suppressed_count, window.suppressed_count = window.suppressed_count, 0
        return {"suppressed": suppressed_count} if suppressed_count else {}
