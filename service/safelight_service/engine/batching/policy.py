"""Scheduling policy: which job comes next when the device cannot serve all at once, and why.

Jobs are ranked before each step. The first image that waits for a forward leads it, and others that
can be merged with it may ride along, in the same order. By falling importance:

1. Work that has watchers comes before abandoned work, which only lingers.
2. The tenant with the least device time for its weight comes first: `fair_shares.py` counts it.
3. Within a tenant, the configured order decides: one of POLICIES.
4. Then the job that arrived first.

With a single tenant the second rule decides nothing. The order also decides which images ride
along. Late jobs come last within their tenant, and get a part of its time nevertheless:
`late_turns.py` counts it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.job import Job


class Place(NamedTuple):
    """Place of a job among those of its tenant; the lowest comes first."""

    is_late: bool
    """Whether it comes after all jobs that are not late."""
    seconds: float


@dataclass(frozen=True, slots=True)
class SchedulingPolicy:
    """An order of jobs, and its rule for riders."""

    place: Callable[[Job, float], Place]
    """Returns the place of a job at a moment of time.monotonic."""
    rides: Callable[[float, float], bool]
    """Returns whether an image that fits into a forward joins it.

    The arguments are the factors by which it raises the rate at which images end, and the seconds
    of the forward. The rate counts 1/n for an image with n forwards ahead.
    """


PATIENCE = 3.0
"""Longest time from arrival to end that is worth a hurry, in multiples of the time alone."""

TOLERANCE = 0.9
"""Least rate with a rider, as a part of that without it: wider forwards do more work in total."""


def rank_by_arrival(job: Job, now: float) -> Place:
    """Rank by arrival."""
    return Place(False, job.arrived_at)


def rank_by_remaining(job: Job, now: float) -> Place:
    """Rank by remaining work, so that most jobs take little longer than alone.

    Under overload some jobs have to be late. A job that has become so, by its PATIENCE, costs
    others their punctuality and gains nothing: it comes after them, by arrival.
    """
    remaining_s = _seconds_alone(job, [image for image in job.images if not image.has_ended])
    alone_s = _seconds_alone(job, job.images, from_start=True)
    if now - job.arrived_at + remaining_s > PATIENCE * alone_s:
        return Place(True, job.arrived_at)
    return Place(False, remaining_s)


def ride_always(rate_factor: float, seconds_factor: float) -> bool:
    """Fill every forward: the most images in total."""
    return True


def ride_if_images_end_sooner(rate_factor: float, seconds_factor: float) -> bool:
    """Keep long jobs from slowing down short ones, unless both hardly notice."""
    return rate_factor >= TOLERANCE * seconds_factor


FIRST_COME = SchedulingPolicy(rank_by_arrival, ride_always)
SHORTEST_REMAINING = SchedulingPolicy(rank_by_remaining, ride_if_images_end_sooner)

POLICIES: Mapping[str, SchedulingPolicy] = {
    "first_come": FIRST_COME,
    "shortest_remaining": SHORTEST_REMAINING,
}


class Rank(NamedTuple):
    """Rank of a job; the lowest comes first. Fields by falling importance."""

    is_abandoned: bool
    virtual_s: float
    """Device seconds of its tenant, divided by the tenant's weight."""
    place: Place
    """By the configured policy."""
    arrived_at: float


def rank_of(job: Job, now: float, policy: SchedulingPolicy, virtual_s: Mapping[str, float]) -> Rank:
    """Return the rank of a job at a moment of time.monotonic."""
    return Rank(
        job.is_abandoned,
        virtual_s.get(job.tenant.name, 0.0),
        policy.place(job, now),
        job.arrived_at,
    )


def find_active(jobs: list[Job]) -> set[str]:
    """Return the names of the tenants that compete for the device.

    Abandoned work counts only where there is no other. Its tenant would fall behind, and each
    newcomer would start as far behind.
    """
    watched = {job.tenant.name for job in jobs if not job.is_abandoned}
    return watched or {job.tenant.name for job in jobs}


def _seconds_alone(job: Job, images: Sequence[ImageRun], *, from_start: bool = False) -> float:
    """Estimate the seconds of images on an idle device; their steps, before any measurement.

    They share their forwards if these have room for all.
    """
    if not images:
        return 0.0
    cost_model = job.cost_model
    demand = images[0].demand
    step_count = job.request.parameters.num_inference_steps
    steps = [
        image.reuse.count_computed(0, step_count) if from_start else image.computed_steps_left
        for image in images
    ]
    row_count = len(images) * demand.row_count
    if cost_model.has_room(len(images), row_count):
        forward_count = max(steps) * demand.forwards_per_step
    else:
        row_count = demand.row_count
        forward_count = sum(steps) * demand.forwards_per_step
    starts = len(images) if from_start else sum(not image.is_started for image in images)
    return (
        starts * (cost_model.before_steps.value or 0.0)
        + forward_count * (cost_model.forward_s(row_count) or 1.0)
        + len(images) * cost_model.after_steps_s
    )
