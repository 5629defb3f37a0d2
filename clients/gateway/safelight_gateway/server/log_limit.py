"""The log limit: a filter that bounds how often callers can cause the same log line."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MAX_KINDS = 256
_KIND_LENGTH = 48
"""Beginning of a message that tells kinds apart; asyncio puts values into its messages."""

_Kind = tuple[str, int, str]


@dataclass(slots=True)
class _Window:
    begun_at: float
    count: int = 0
    suppressed: int = 0


class LogLimit(logging.Filter):
    """Passes the first lines of each kind in a time window, and counts the rest.

    A kind is a logger, a level and the text of a message before its values are put in. The next
    line after the window says how many were suppressed, and so does `report`.
    """

    def __init__(
        self, burst: int = 10, window_s: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Pass `burst` lines of each kind in `window_s` seconds."""
        super().__init__()
        self._burst = burst
        self._window_s = window_s
        self._clock = clock
        self._windows: OrderedDict[_Kind, _Window] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line; add the number of those before it that were not."""
        kind = (record.name, record.levelno, str(record.msg)[:_KIND_LENGTH])
        now = self._clock()
        window = self._windows.get(kind)
        if window is None or now - window.begun_at >= self._window_s:
            suppressed = window.suppressed if window is not None else 0
            window = self._windows[kind] = _Window(now)
            self._windows.move_to_end(kind)
            if suppressed:
                record.msg = f"{record.msg} ({suppressed} more such lines before this one)"
            while len(self._windows) > _MAX_KINDS:
                self._windows.popitem(last=False)
        window.count += 1
        if window.count <= self._burst:
            return True
        window.suppressed += 1
        return False

    def report(self) -> None:
        """Log the number of suppressed lines of each kind whose window is over."""
        now = self._clock()
        for kind, window in [*self._windows.items()]:
            if window.suppressed and now - window.begun_at >= self._window_s:
                del self._windows[kind]
                name, level, text = kind
                first_line = text.partition("\n")[0]
                logging.getLogger(name).log(
                    level, "%d more lines were suppressed: %s", window.suppressed, first_line
                )
