"""Sharing: allots the rows of a forward and the seconds of a step."""

import math
from collections.abc import Hashable

from safelight_service.engine.batching.cost_model import Average, CostModel
from safelight_service.engine.batching.policy import SchedulingPolicy
from safelight_service.engine.operations import Forward


class Seats:
    """Seats of a forward, taken by its members one after another."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self._policy = policy
        self._count = 0
        self._row_count = 0
        self._rate = 0.0
        """Rate at which the members end, in images per forward."""
        self._key: Hashable = None

    def matches(self, forward: Forward) -> bool:
        """Whether a forward can be merged with the seated ones."""
        return self._count == 0 or forward.key == self._key

    def has_room(self, cost_model: CostModel, row_count: int) -> bool:
        """Whether another forward of this many rows fits."""
        return cost_model.has_room(self._count + 1, self._row_count + row_count)

    def is_worth(self, cost_model: CostModel, row_count: int, rate: float) -> bool:
        """Whether another forward of this many rows joins by the policy; unmeasured widths do.

        `rate` is that of its image, in images per forward.
        """
        if not self._rate:
            return True
        slowdown = cost_model.slowdown(self._row_count, row_count)
        if slowdown is None:
            return True
        return self._policy.rides(1 + rate / self._rate, slowdown)

    def take(self, forward: Forward, rate: float) -> None:
        """Seat a forward that matches and has room."""
        self._rate += rate
        self._count += 1
        self._row_count += forward.row_count
        self._key = forward.key


class Budget:
    """A budget of seconds; it allows at least one expense."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether no time is left."""
        return 0 < self._spent >= self._seconds < math.inf

    def spend(self, seconds: float | None, average: Average) -> None:
        """Subtract seconds, or else the average; all of the budget if neither is known."""
        known = (each for each in (seconds, average.value) if each is not None)
        self._spent += next(known, math.inf)
