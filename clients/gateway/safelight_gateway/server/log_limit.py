"""The log limit: a filter that bounds how often callers can cause the same log line."""

import logging
import time
from collections.abc import Callable

from safelight_settings import LineLimit

_KIND_LENGTH = 48
"""Beginning of a message that tells kinds apart; asyncio puts values into its messages."""


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
        self._limit = LineLimit(burst, window_s, clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write a line; add the number of those before it that were not."""
        kind = (record.name, record.levelno, str(record.msg)[:_KIND_LENGTH])
        admitted = self._limit.admit(kind)
        if admitted:
            suppressed = admitted["suppressed"]
            record.msg = f"{record.msg} ({suppressed} more such lines before this one)"
        return admitted is not None

    def report(self) -> None:
        """Log the number of suppressed lines of each kind whose window is over."""
        for (name, level, text), count in self._limit.collect():
            first_line = text.partition("\n")[0]
            logging.getLogger(name).log(
                level, "%d more lines were suppressed: %s", count, first_line
            )
