"""Forecast: when generations will start and finish, by playing the schedule through."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from safelight_service.engine.batching.cost_model import Average, CostModel
from safelight_service.engine.image_run import ImageRun

_MOST_STRETCH = 2.0
"""No forecast is taken to have been wrong by more; what went on then was something else."""


class Forecast:
    """Tells images when they will start and finish, and learns from how wrong it was.

    A schedule knows nothing of who is still to come. Under a steady load others take the places of
    those that end, and everybody needs longer than the schedule says; by as much as before, as a
    rule.
    """

    def __init__(self) -> None:
        self._stretch = Average()

    def make(self, images: Sequence[ImageRun]) -> None:
        """Work out when each of the images, given in their order, will start and finish."""
        now = time.monotonic()
        plans = [_plan(image) for image in images]
        play(plans)
        stretch = self._stretch.value or 1.0
        for image, plan in zip(images, plans, strict=True):
            image.starts_at = _after(now, plan.starts_s, stretch)
            image.finishes_at = _after(now, plan.finishes_s, stretch)
            if image.is_started and image.promise is None and plan.finishes_s:
                image.promise = now, plan.finishes_s

    def learn(self, image: ImageRun, decoded_at: float) -> None:
        """Compare what was forecast when the image was started with what has come of it."""
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
    """One image that is to be made, or half made; seconds count from now.

    `starts_s` and `finishes_s` are filled in by `play`; None where nothing like it was measured.
    """

    cost_model: CostModel
    row_count: int
    forwards_left: float
    is_started: bool
    starts_s: float | None = None
    finishes_s: float | None = None


def play(plans: Sequence[Plan]) -> None:
    """Fill in when each of the plans, given in their order, starts and finishes."""
    now = 0.0
    pending = list(plans)
    while pending:
        members = choose_members(pending)
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
        pending = [plan for plan in pending if plan.finishes_s is None]


def choose_members(plans: Sequence[Plan]) -> list[Plan]:
    """Return those that share the next forward with the first one."""
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
