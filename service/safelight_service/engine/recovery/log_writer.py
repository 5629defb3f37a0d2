"""LogWriter: the thread that encodes and stores records, within bounds of memory and storage."""

import queue
import threading
import time
from collections.abc import Callable

import structlog

_log = structlog.get_logger()

MAX_PENDING_BYTES = 64 << 20
"""Copies of outputs that wait for the thread."""
_PATIENCE_S = 5.0
"""Longest wait for the thread at the end."""
_PAUSE_S = 5.0
"""Pause after the store has failed."""


class LogWriter:
    """Runs tasks in order, on one thread. Its methods are safe to call from any thread."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` bounds the logs of all runs in progress."""
        self._max_bytes = max_bytes
        self._stored_bytes = 0
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._tasks: queue.SimpleQueue[tuple[int, Callable[[], None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="safelight-recovery", daemon=True)
        self._thread.start()

    @property
    def is_paused(self) -> bool:
        """Whether the store has failed a moment ago."""
        return time.monotonic() < self._paused_until

    def reserve(self, size: int) -> bool:
        """Reserve bytes for a record; false if they exceed a bound."""
        with self._lock:
            if (
                self._pending_bytes + size > MAX_PENDING_BYTES
                or self._stored_bytes + size > self._max_bytes
            ):
                return False
            self._pending_bytes += size
            self._stored_bytes += size
            return True

    def free(self, size: int) -> None:
        """Free the bytes of a run whose records are no longer its own."""
        with self._lock:
            self._stored_bytes -= size

    def submit(self, size: int, task: Callable[[], None]) -> None:
        """Run a task, which holds `size` reserved bytes until it has run."""
        self._tasks.put((size, task))

    def note_failure(self, error: Exception) -> None:
        """Log a failure of the store, and pause."""
        if not self.is_paused:
            _log.warning("recovery_log_failed", error_type=type(error).__name__)
        self._paused_until = time.monotonic() + _PAUSE_S

    def close(self) -> None:
        """End the thread, after all tasks; give up after a while, as a device may hang."""
        self._tasks.put(None)
        self._thread.join(_PATIENCE_S)

    def _work(self) -> None:
        while (item := self._tasks.get()) is not None:
            size, task = item
            try:
                task()
            except Exception as error:  # a run never fails because of its log
                self.note_failure(error)
            with self._lock:
                self._pending_bytes -= size
