"""BusyClock: since when the device thread has been at its current operation, and its busy time."""

import time


class BusyClock:
    """Started by the device thread for each operation, and read by other threads."""

    def __init__(self) -> None:
        self.since: float | None = None
        """Start of the current operation, by time.monotonic; None while there is none."""
        self.total_s = 0.0
        """Seconds of all operations so far."""
        self._busy_since: float | None = None

    def start(self) -> float:
        """Begin an operation, and return `since`."""
        self.since = now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        return now

    def stop(self) -> None:
        """End the operation; a further `start` without it belongs to the same work."""
        if self._busy_since is not None:
            self.total_s += time.monotonic() - self._busy_since
        self.since = self._busy_since = None
