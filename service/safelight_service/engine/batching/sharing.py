"""Sharing: allots the rows of a forward and the seconds of a step."""

import math
from collections.abc import Hashable

from safelight_service.engine.batching.cost_model import Average, CostModel
from safelight_service.engine.operations import Forward


class Seats:
    """Seats of a forward, taken by its members one after another."""

    def __init__(self) -> None:
        self._count = 0
        self._row_count = 0
        self._key: Hashable = None

    def matches(self, forward: Forward) -> bool:
        """Whether a forward can be merged with the seated ones."""
        return self._count == 0 or forward.key == self._key

    def has_room(self, cost_model: CostModel, row_count: int) -> bool:
        """Whether another forward of this many rows fits."""
        return cost_model.has_room(self._count + 1, self._row_count + row_count)

    def take(self, cost_model: CostModel, forward: Forward) -> bool:
        """Seat a forward that matches; false if it does not fit."""
        if not self.has_room(cost_model, forward.row_count):
            return False
        self._count += 1
        self._row_count += forward.row_count
        self._key = forward.key
        return True


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
