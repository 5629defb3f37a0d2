"""Arrivals: how long an idle device waits for jobs that are likely to come together.

Callers whose images were finished together tend to ask for the next ones at the same time. One
that misses the first forward stays a step behind. So the device waits for them, but no longer than
an image's share of a forward.
"""

import time
from typing import NamedTuple

_LONGEST_PAUSE_S = 0.003
_PAUSE_SHARE = 1 / 16
"""Wait of an idle device for one more job after each arrival, as a share of a forward."""


class Expectation(NamedTuple):
    """Waits of an idle device after the arrival of a job, in seconds."""

    job_count: int
    patience_s: float
    """Longest wait until `job_count` jobs have arrived."""
    pause_s: float
    """Longest wait for one more after each."""


class Arrivals:
    """Predicts arrivals from the jobs that have last been completed together."""

    def __init__(self) -> None:
        self._together_count = 0
        """Jobs that were completed by the last step to complete any."""
        self._completed_at = 0.0

    def note_completed(self, job_count: int) -> None:
        """Learn that a step has completed `job_count` jobs, at least one."""
        self._together_count = job_count
        self._completed_at = time.monotonic()

    def expect(self, forward_s: float) -> Expectation:
        """Return the waits of a device whose last forward took `forward_s` seconds."""
        pause_s = min(_LONGEST_PAUSE_S, forward_s * _PAUSE_SHARE)
        if not self._together_count or time.monotonic() > self._completed_at + forward_s:
            return Expectation(0, 0.0, pause_s)
        return Expectation(self._together_count, forward_s / self._together_count, pause_s)
