"""Scheduling policy: which job comes next when the device cannot serve all at once, and why.

Jobs are ranked before each step. The first image that waits for a forward leads it, and others that
can be merged with it ride along in the same order. By falling importance:

1. Work that has watchers comes before abandoned work, which only lingers.
2. The tenant with the least device time for its weight comes first: `fair_shares.py` counts it.
3. Within a tenant, the configured order decides: one of POLICIES.
4. Then the job that arrived first.

With a single tenant the second rule decides nothing.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from safelight_service.engine.job import Job


@dataclass(frozen=True, slots=True)
class Priority:
    """Facts that a policy ranks a job by."""

    arrived_at: float
    """Seconds, by time.monotonic."""
    waited_s: float
    find_remaining_s: Callable[[], float]
    """Returns the seconds of work left; a function, since jobs are ranked at every step."""


SchedulingPolicy = Callable[[Priority], float]
"""Returns a place. The job of the lowest place comes first among those of its tenant."""

AGEING = 0.5
"""Weight of a second of waiting against one of remaining work; keeps long jobs from starving."""


def first_come_first_served(priority: Priority) -> float:
    """Rank by arrival."""
    return priority.arrived_at


def shortest_remaining_first(priority: Priority) -> float:
    """Rank by remaining work less waiting time: a lower mean latency, and a longer tail."""
    return priority.find_remaining_s() - AGEING * priority.waited_s


POLICIES: Mapping[str, SchedulingPolicy] = {
    "first_come": first_come_first_served,
    "shortest_remaining": shortest_remaining_first,
}


class Rank(NamedTuple):
    """Rank of a job; the lowest comes first. Fields by falling importance."""

    is_abandoned: bool
    virtual_s: float
    """Device seconds of its tenant, divided by the tenant's weight."""
    place: float
    """By the configured policy."""
    arrived_at: float


def rank_of(job: Job, now: float, policy: SchedulingPolicy, virtual_s: Mapping[str, float]) -> Rank:
    """Return the rank of a job at a moment of time.monotonic."""
    priority = Priority(job.arrived_at, now - job.arrived_at, functools.partial(_remaining_s, job))
    return Rank(
        job.is_abandoned, virtual_s.get(job.tenant.name, 0.0), policy(priority), job.arrived_at
    )


def find_active(jobs: list[Job]) -> set[str]:
    """Return the names of the tenants that compete for the device.

    Abandoned work counts only where there is no other. Its tenant would fall behind, and each
    newcomer would start as far behind.
    """
    watched = {job.tenant.name for job in jobs if not job.is_abandoned}
    return watched or {job.tenant.name for job in jobs}


def _remaining_s(job: Job) -> float:
    """Estimate the seconds that a job would take alone; its steps, before any measurement."""
    total = 0.0
    for image in job.images:
        demand = image.demand
        forward_s = job.cost_model.forward_s(demand.row_count) or 1.0
        total += image.steps_left * demand.forwards_per_step * forward_s
    return total
