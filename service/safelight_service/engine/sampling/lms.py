"""LMS: the coefficients of its steps, integrated once for all images of a schedule."""

from collections.abc import Hashable
from typing import Any

from cachetools import LRUCache

_MOST_REMEMBERED = 4096
"""Coefficients; a schedule has up to four for each step."""


class LmsCoefficients:
    """Remembers coefficients across LMSDiscreteSchedulers.

    Each takes scipy an adaptive integration, up to a millisecond of Python on the device thread.
    """

    def __init__(self) -> None:
        self._known: LRUCache[Hashable, float] = LRUCache(_MOST_REMEMBERED)

    def attach(self, scheduler: Any) -> None:
        """Have a scheduler look its coefficients up here; the results stay the same."""
        integrate = scheduler.get_lms_coefficient

        def look_up(order: int, t: int, current_order: int) -> float:
            # All that it depends on: the noise levels of the steps that are combined.
            levels = tuple(scheduler.sigmas[t - order + 1 : t + 2].tolist())
            key = levels, current_order
            if key not in self._known:
                self._known[key] = integrate(order, t, current_order)
            return self._known[key]

        scheduler.get_lms_coefficient = look_up
