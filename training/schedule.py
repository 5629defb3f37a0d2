"""Schedule: a learning rate that follows the clock, so that training ends on time."""

import math
import time
from collections.abc import Iterator

from torch.optim import Optimizer


class Schedule:
    """Learning rate that warms up to `peak`, then follows a cosine to zero at `minutes`.

    `spent_s` counts the seconds of an earlier, interrupted run.
    """

    def __init__(
        self, optimizer: Optimizer, peak: float, minutes: float, spent_s: float = 0.0
    ) -> None:
        self._optimizer = optimizer
        self._peak = peak
        self._total_s = minutes * 60
        self._started = time.monotonic() - spent_s

    @property
    def spent_s(self) -> float:
        """Seconds used so far, including earlier runs."""
        return time.monotonic() - self._started

    def steps(self) -> Iterator[int]:
        """Yield step numbers until the time is up; set the learning rate before each."""
        step = 0
        while (done := self.spent_s / self._total_s) < 1:
            # The first 3 % of the time is the warm-up.
            rate = min(done / 0.03, 0.5 + 0.5 * math.cos(math.pi * done))
            for group in self._optimizer.param_groups:
                group["lr"] = self._peak * rate
            yield step
            step += 1
