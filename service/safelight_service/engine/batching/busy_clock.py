"""BusyClock: since when the device thread has been at its current operation."""

import time


class BusyClock:
    """Started by the device thread for each operation, and read by the watchdog's thread."""

    def __init__(self) -> None:
        self.since: float | None = None
        """Start of the current operation, by time.monotonic; None while there is none."""

    def start(self) -> float:
        """Begin an operation, and return `since`."""
        self.since = now = time.monotonic()
        return now

    def stop(self) -> None:
        """End the operation."""
        self.since = None
