"""Timestamps: whether to ask the timestamp authority, which may be away."""

import threading
import time
from collections.abc import Callable

PAUSE_S = 60.0
"""Seconds between two attempts while the authority fails; each may take 30 s."""


class Timestamps:
    """Lets all threads ask the authority while it works, and one at a time after a failure."""

    def __init__(self, url: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """`url` is None without an authority."""
        self._url = url
        self._clock = clock
        self._is_failing = False
        self._retry_at = 0.0
        self._lock = threading.Lock()

    def claim(self) -> str | None:
        """Return the URL to ask now; None to sign without a timestamp."""
        with self._lock:
            if self._is_failing:
                if self._clock() < self._retry_at:
                    return None
                self._retry_at = self._clock() + PAUSE_S
            return self._url

    def note(self, *, is_failing: bool) -> bool:
        """Note how an attempt has ended; return whether that is news."""
        with self._lock:
            is_news = is_failing != self._is_failing
            self._is_failing = is_failing
            self._retry_at = self._clock() + PAUSE_S
            return is_news
