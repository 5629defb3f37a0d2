"""Sharing: how the rows of a forward and the seconds of a step are given out."""

import math
from collections.abc import Hashable

from safelight_service.engine.batching.cost_model import CostModel
from safelight_service.engine.operations import Forward


class Seats:
    """The members of a forward as they are chosen, one after another."""

    def __init__(self) -> None:
        self._count = 0
        self._row_count = 0
        self._key: Hashable = None

    def matches(self, call: Forward) -> bool:
        """Whether a call can be merged with those that have a seat."""
        return self._count == 0 or call.key == self._key

    def has_room(self, cost_model: CostModel, row_count: int) -> bool:
        """Whether one more, of so many rows, finds room."""
        return cost_model.has_room(self._count + 1, self._row_count + row_count)

    def take(self, cost_model: CostModel, call: Forward) -> bool:
        """Seat a call that matches; false if there is no room."""
        if not self.has_room(cost_model, call.row_count):
            return False
        self._count += 1
        self._row_count += call.row_count
        self._key = call.key
        return True


class Budget:
    """Seconds of a step; at least one thing is always done."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._spent = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether there is no time for anything more."""
        return 0 < self._spent >= self._seconds < math.inf

    def spend(self, seconds: float) -> None:
        """Take seconds out."""
        self._spent += seconds
