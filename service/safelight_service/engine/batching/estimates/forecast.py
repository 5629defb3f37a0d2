"""Forecast: predicts when images start and finish, by simulating the schedule.

Tenants take turns as by `policy.py`, but in longer turns: an eighth of the simulated time or, among
more tenants, a share of it. So near moments are precise, and a long queue costs few turns.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.engine.batching.estimates.cost_model import Average, CostModel
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.job import Job

_MOST_STRETCH = 2.0
"""Largest error of a forecast that is learned from; larger ones have other causes."""

_TURNS = 8
"""Least turns in which simulated time doubles, roughly."""

_NONE: Mapping[str, float] = MappingProxyType({})


class Forecast:
    """Predicts starts and ends of images, and corrects itself by its past errors.

    The simulation does not include images that arrive later. Under a steady load these take the
    places of finished ones. So every image takes longer, usually by the same factor as before.
    """

    def __init__(self) -> None:
        self._stretch = Average()

    def make(self, images: Sequence[ImageRun], virtual_s: Mapping[str, float] = _NONE) -> None:
        """Set `starts_at` and `finishes_at` of images, given in the order of their priority.

        `virtual_s` are the present virtual times of their tenants.
        """
        now = time.monotonic()
        plans = [_plan(image) for image in images]
        simulate(plans, virtual_s)
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


def find_seconds_alone(job: Job) -> float | None:
    """Return the seconds that the rest of a job would take alone; None without measurements."""
    plans = [_plan(image) for image in job.images if not image.has_ended]
    simulate(plans)
    ends = [plan.finishes_s for plan in plans if plan.finishes_s is not None]
    return max(ends, default=0.0) if len(ends) == len(plans) else None


def _after(now: float, seconds: float | None, stretch: float) -> float | None:
    return None if seconds is None else now + seconds * stretch


def _plan(image: ImageRun) -> "Plan":
    demand = image.demand
    return Plan(
        image.job.cost_model,
        demand.row_count,
        image.computed_steps_left * demand.forwards_per_step,
        is_started=image.is_started,
        tenant=image.job.tenant,
        is_abandoned=image.job.is_abandoned,
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
    tenant: Tenant = NO_TENANT
    is_abandoned: bool = False
    starts_s: float | None = None
    finishes_s: float | None = None


def simulate(plans: Sequence[Plan], virtual_s: Mapping[str, float] = _NONE) -> None:
    """Set the start and the end of each plan, given in the order of their priority.

    `virtual_s` are the virtual times of their tenants when it begins.
    """
    turns = _Turns(plans, virtual_s)
    now = 0.0
    unfinished = list(plans)
    while unfinished:
        members = choose_members(turns.rank(unfinished))
        cost_model = members[0].cost_model
        row_count = sum(plan.row_count for plan in members)
        seconds = cost_model.forward_s(row_count)
        if seconds is None:
            return
        for plan in members:
            if plan.starts_s is None:
                plan.starts_s = now
                start_s = 0 if plan.is_started else cost_model.before_steps.value or 0
                turns.charge(plan, start_s)
                now += start_s
        forwards = min(plan.forwards_left for plan in members)
        forwards = turns.shorten(forwards, seconds, now)
        now += forwards * seconds
        for plan in members:
            turns.charge(plan, forwards * seconds * plan.row_count / row_count)
            plan.forwards_left -= forwards
            if plan.forwards_left <= 0:
                turns.charge(plan, cost_model.after_steps_s)
                now += cost_model.after_steps_s
                plan.finishes_s = now
        unfinished = [plan for plan in unfinished if plan.finishes_s is None]


class _Turns:
    """Turns of the tenants in a simulation."""

    def __init__(self, plans: Sequence[Plan], virtual_s: Mapping[str, float]) -> None:
        names = {plan.tenant.name for plan in plans}
        self._virtual_s = {name: virtual_s.get(name, 0.0) for name in names}
        self._is_alone = len(names) == 1 and len({plan.is_abandoned for plan in plans}) == 1

    def rank(self, plans: Sequence[Plan]) -> Sequence[Plan]:
        """Return plans, given by their priority within each tenant, by that of all."""
        if self._is_alone:
            return plans
        ranks = self._virtual_s
        return sorted(plans, key=lambda plan: (plan.is_abandoned, ranks[plan.tenant.name]))

    def charge(self, plan: Plan, seconds: float) -> None:
        """Count seconds of a plan's tenant."""
        self._virtual_s[plan.tenant.name] += seconds / plan.tenant.weight

    def shorten(self, forwards: float, forward_s: float, now: float) -> float:
        """Return the forwards until another tenant may have its turn; at most `forwards`."""
        if len(self._virtual_s) == 1 or not forward_s:
            return forwards
        turn_s = now / max(_TURNS, len(self._virtual_s))
        return min(forwards, max(1.0, turn_s // forward_s))


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
