"""Forecast: predicts when images start and finish, by simulating the schedule."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from safelight_service.engine.batching.cost_model import Average, CostModel
from safelight_service.engine.image_run import ImageRun

_MOST_STRETCH = 2.0
"""Largest error of a forecast that is learned from; larger ones have other causes."""


class Forecast:
    """Predicts starts and ends of images, and corrects itself by its past errors.

    The simulation does not include images that arrive later. Under a steady load these take the
    places of finished ones. So every image takes longer, usually by the same factor as before.
    """

    def __init__(self) -> None:
        self._stretch = Average()

    def make(self, images: Sequence[ImageRun]) -> None:
        """Set `starts_at` and `finishes_at` of images, given in the order of their priority."""
        now = time.monotonic()
        plans = [_plan(image) for image in images]
        simulate(plans)
        stretch = self._stretch.value or 1.0
        for image, plan in zip(images, plans, strict=True):
            image.starts_at = _after(now, plan.starts_s, stretch)
            image.finishes_at = _after(now, plan.finishes_s, stretch)
            if image.is_started and image.promise is None and plan.finishes_s:
                image.promise = now, plan.finishes_s

    def learn(self, image: ImageRun, decoded_at: float) -> None:
        """Compare the forecast at the start of an image with its actual end."""
        if image.promise is not None:
            at, seconds = image.promise
            stretch = (decoded_at - at) / seconds
            self._stretch.note(min(_MOST_STRETCH, max(1 / _MOST_STRETCH, stretch)))


def _after(now: float, seconds: float | None, stretch: float) -> float | None:
    return None if seconds is None else now + seconds * stretch


def _plan(image: ImageRun) -> "Plan":
    demand = image.demand
    return Plan(
        image.job.cost_model,
        demand.row_count,
        image.steps_left * demand.forwards_per_step,
        is_started=image.is_started,
    )


@dataclass(slots=True)
class Plan:
    """An image that waits or is being made, in the simulation; seconds count from now.

    `simulate` sets `starts_s` and `finishes_s`; they stay None where costs are unknown.
    """

    cost_model: CostModel
    row_count: int
    forwards_left: float
    is_started: bool
    starts_s: float | None = None
    finishes_s: float | None = None


def simulate(plans: Sequence[Plan]) -> None:
    """Set the start and the end of each plan, given in the order of their priority."""
    now = 0.0
    unfinished = list(plans)
    while unfinished:
        members = choose_members(unfinished)
        cost_model = members[0].cost_model
        seconds = cost_model.forward_s(sum(plan.row_count for plan in members))
        if seconds is None:
            return
        for plan in members:
            if plan.starts_s is None:
                plan.starts_s = now
                now += 0 if plan.is_started else cost_model.before_steps.value or 0
        forwards = min(plan.forwards_left for plan in members)
        now += forwards * seconds
        for plan in members:
            plan.forwards_left -= forwards
            if plan.forwards_left <= 0:
                now += cost_model.after_steps_s
                plan.finishes_s = now
        unfinished = [plan for plan in unfinished if plan.finishes_s is None]


def choose_members(plans: Sequence[Plan]) -> list[Plan]:
    """Return the plans that share the next forward with the first one."""
    cost_model = plans[0].cost_model
    members: list[Plan] = []
    row_count = 0
    for plan in plans:
        if plan.cost_model is not cost_model:
            continue
        row_count += plan.row_count
        if not cost_model.has_room(len(members) + 1, row_count):
            break
        members.append(plan)
    return members
