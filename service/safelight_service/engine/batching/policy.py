"""Scheduling policy: which jobs come first when the device cannot serve all at once."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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
"""Returns a rank. The job of the lowest rank runs first, and others may share its forwards."""

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


def priority_of(job: Job, now: float) -> Priority:
    """Return the priority of a job at a moment of time.monotonic."""
    return Priority(job.arrived_at, now - job.arrived_at, functools.partial(_remaining_s, job))


def _remaining_s(job: Job) -> float:
    """Estimate the seconds that a job would take alone; its steps, before any measurement."""
    total = 0.0
    for image in job.images:
        demand = image.demand
        forward_s = job.cost_model.forward_s(demand.row_count) or 1.0
        total += image.steps_left * demand.forwards_per_step * forward_s
    return total
