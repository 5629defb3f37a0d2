"""A learning rate that follows the wall clock, so that a shared machine ends on time."""

import math
import time
from collections.abc import Iterator

from torch.optim import Optimizer


class Schedule:
    """Warm-up to `peak`, then a cosine down to nothing after `minutes`.

    `spent_s` is what an earlier, interrupted run used of the minutes.
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
        """Seconds used so far, earlier runs included."""
        return time.monotonic() - self._started

    def steps(self) -> Iterator[int]:
        """Numbers of steps until the time is up; sets the learning rate before each."""
        step = 0
        while (done := self.spent_s / self._total_s) < 1:
            # The first three in a hundred of the time warm up.
            rate = min(done / 0.03, 0.5 + 0.5 * math.cos(math.pi * done))
            for group in self._optimizer.param_groups:
                group["lr"] = self._peak * rate
            yield step
            step += 1
