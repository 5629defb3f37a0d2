"""Sharing: allots the rows of a forward and the seconds of a step."""

import math
from collections.abc import Hashable

from safelight_service.engine.batching.estimates.cost_model import Average, CostModel
from safelight_service.engine.batching.policy import SchedulingPolicy
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.operations import Forward


class Seats:
    """Seats of a forward, taken by its members one after another."""

    def __init__(self, policy: SchedulingPolicy) -> None:
        self.members: list[ImageRun] = []
        """Images that `offer` has seated."""
        self._policy = policy
        self._cost_model: CostModel | None = None
        self._count = 0
        self._row_count = 0
        self._rate = 0.0
        """Rate at which the members end, in images per forward."""
        self._key: Hashable = None

    def offer(self, image: ImageRun, rate: float) -> bool:
        """Seat a runnable image if it can be merged and joins by the policy.

        Returns False once there is no room for it. `rate` is in images per forward.
        """
        cost_model, forward = image.job.cost_model, image.operation_as(Forward)
        if not (self.is_for(cost_model) and self.matches(forward)):
            return True
        if not self.has_room(cost_model, forward.row_count):
            return False
        if self.is_worth(cost_model, forward.row_count, rate):
            self.take(forward, rate)
            self.members.append(image)
        return True

    def is_for(self, cost_model: CostModel) -> bool:
        """Whether the forward has this model and size; the first one that asks decides."""
        self._cost_model = self._cost_model or cost_model
        return self._cost_model is cost_model

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
