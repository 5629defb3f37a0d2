"""LmsCoefficients: integrates the coefficients of LMS once for all images of a schedule."""

from collections.abc import Hashable
from typing import Any

from cachetools import LRUCache

_MOST_REMEMBERED = 4096
"""Most kept coefficients; a schedule has up to four for each step."""


class LmsCoefficients:
    """Shares coefficients between LMSDiscreteSchedulers.

    Each one costs scipy an adaptive integration of up to a millisecond on the device thread.
    """

    def __init__(self) -> None:
        self._known: LRUCache[Hashable, float] = LRUCache(_MOST_REMEMBERED)

    def attach(self, scheduler: Any) -> None:
        """Make a scheduler look up its coefficients here; its results stay the same."""
        integrate = scheduler.get_lms_coefficient

        def look_up(order: int, t: int, current_order: int) -> float:
            # A coefficient depends only on the noise levels of the combined steps.
            levels = tuple(scheduler.sigmas[t - order + 1 : t + 2].tolist())
            key = levels, current_order
            if key not in self._known:
                self._known[key] = integrate(order, t, current_order)
            return self._known[key]

        scheduler.get_lms_coefficient = look_up
