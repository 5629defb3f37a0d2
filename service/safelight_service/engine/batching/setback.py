"""Setback: a limit after a failure, which is lifted step by step when the failure has passed."""

import time

FIRST_TRIAL_S = 30.0
"""Seconds from the first failure to the next try; twice as many after each further one."""

_LONGEST_S = 3600.0


class Setback:
    """Limits a quantity to what last worked, and lets twice as much be tried from time to time.

    A shortage of memory may be over as soon as another model has been loaded. A trial that works
    doubles the limit; one that fails halves it, and makes the next trial wait twice as long.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._wait_s = FIRST_TRIAL_S
        self._trial_at = 0.0

    def limit(self, most: int) -> None:
        """Allow no more than this until the next trial."""
        now = time.monotonic()
        if self._limit is not None and now >= self._trial_at:  # the trial has failed
            self._wait_s = min(2 * self._wait_s, _LONGEST_S)
        self._limit = most
        self._trial_at = now + self._wait_s

    def allows(self, quantity: int) -> bool:
        """Whether this much may be used, be it as a trial."""
        if self._limit is None or quantity <= self._limit:
            return True
        return quantity <= 2 * self._limit and time.monotonic() >= self._trial_at

    def allow(self, quantity: int) -> None:
        """Raise the limit to what has just worked."""
        if self._limit is not None and quantity > self._limit:
            self._limit = quantity
            self._wait_s = FIRST_TRIAL_S
