"""Setback: a limit after a failure, raised step by step by trials that succeed."""

import time

FIRST_TRIAL_S = 30.0
"""Seconds from the first failure to a trial; doubled after each trial that fails."""

_LONGEST_S = 3600.0


class Setback:
    """Limits a quantity to the last value that worked, and allows trials of twice as much.

    A cause such as a shortage of memory may pass. A trial that works doubles the limit; one that
    fails lowers it, and doubles the wait for the next trial.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._wait_s = FIRST_TRIAL_S
        self._trial_at = 0.0

    def limit(self, most: int) -> None:
        """Allow at most `most` until the next trial."""
        now = time.monotonic()
        if self._limit is not None and now >= self._trial_at:  # the trial has failed
            self._wait_s = min(2 * self._wait_s, _LONGEST_S)
        self._limit = most
        self._trial_at = now + self._wait_s

    def allows(self, quantity: int) -> bool:
        """Whether a quantity may be used, possibly as a trial."""
        if self._limit is None or quantity <= self._limit:
            return True
        return quantity <= 2 * self._limit and time.monotonic() >= self._trial_at

    def allow(self, quantity: int) -> None:
        """Raise the limit to a quantity that has worked."""
        if self._limit is not None and quantity > self._limit:
            self._limit = quantity
            self._wait_s = FIRST_TRIAL_S
