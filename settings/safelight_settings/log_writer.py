"""LogWriter: a text stream that a separate thread writes to standard error."""

import os
import queue
import select
import threading
from collections.abc import Callable

_CAPACITY = 4096
"""Maximum number of waiting lines; a line has a few hundred bytes."""
_CLOSE_S = 1.0
_STANDARD_ERROR = 2


class LogWriter:
    """Text stream for log lines: `write` never blocks and never fails.

    Otherwise a reader of standard error that stops reading would block the event loop, and one
    that has gone would raise errors in code that logs. Lines that do not fit are dropped.
    """

    def __init__(self, file_descriptor: int = _STANDARD_ERROR, capacity: int = _CAPACITY) -> None:
        """Write to a file descriptor; drop lines while `capacity` of them wait."""
        self._file_descriptor = file_descriptor
        self._capacity = capacity
        # Not queue.Queue: its lock deadlocks if a finalizer logs while the same thread logs.
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped_count = 0
        self._reported_count = 0
        self.on_dropped: Callable[[int], object] = lambda count: None
        """Receives the number of lines dropped since the last report, once lines are read again.

        Called in the writer's thread.
        """
        self._thread = threading.Thread(target=self._run, name="safelight-log", daemon=True)
        self._thread.start()

    @property
    def dropped_count(self) -> int:
        """Lines dropped so far."""
        return self._dropped_count

    def write(self, text: str) -> int:
        """Queue a line, or drop it."""
        if self._lines.qsize() < self._capacity:
            self._lines.put(text)
        else:
            self._dropped_count += 1
        return len(text)

    def flush(self) -> None:
        """Return at once."""

    def close(self) -> None:
        """Write the lines that wait, for at most a second; later ones are lost."""
        self._lines.put(None)
        self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while (text := self._lines.get()) is not None:
            if not self._write(text.encode(errors="backslashreplace")):
                self._dropped_count += 1
            elif self._dropped_count > self._reported_count:
                count = self._dropped_count - self._reported_count
                self._reported_count += count
                self.on_dropped(count)

    def _write(self, data: bytes) -> bool:
        """Write all of `data`; return False if nothing reads it."""
        try:
            while data:
                try:
                    data = data[os.write(self._file_descriptor, data) :]
                except BlockingIOError:  # another process made the terminal non-blocking
                    select.select([], [self._file_descriptor], [])
        except OSError:
            return False
        return True
