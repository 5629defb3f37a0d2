"""Deadlines: jobs that cannot finish in time, which end early and free their steps."""

import time
from collections.abc import Callable, Sequence

from safelight_service.core.errors import DeadlineError
from safelight_service.engine.batching.estimates.forecast import find_seconds_alone
from safelight_service.engine.job import Job


def find_late(
    jobs: Sequence[Job], check: Callable[[Job], DeadlineError | None]
) -> dict[Job, DeadlineError]:
    """Return the jobs to end for their deadlines, by a check, with their errors.

    Args:
        jobs: Jobs by falling priority.
        check: Returns the error of a job that is too late.

    Of late jobs that wait, these are the later half: without those, the others may be in time.
    """
    late = {job: error for job in jobs if (error := check(job)) is not None}
    waiting = [job for job in late if not job.is_started]
    for job in waiting[: len(waiting) // 2]:
        del late[job]
    return late


def check_arrival(job: Job) -> DeadlineError | None:
    """Return the error of a new job whose forecast exceeds its deadline."""
    if job.deadline_at is None:
        return None
    now = time.monotonic()
    return _compare(job.deadline_at - now, job.expected_s(now))


def check_again(job: Job) -> DeadlineError | None:
    """Return the error of a job that is too late by now.

    A waiting job is late by its forecast, as when it arrived. A started one is late if it could not
    finish in time even alone on the device. Once the deadline has passed, or further watchers have
    joined, only watchers decide.
    """
    if job.deadline_at is None or job.timeline.joined_at is not None:
        return None
    now = time.monotonic()
    left_s = job.deadline_at - now
    if left_s <= 0:
        return None
    return _compare(left_s, find_seconds_alone(job) if job.is_started else job.expected_s(now))


def _compare(left_s: float, needed_s: float | None) -> DeadlineError | None:
    if needed_s is None or needed_s <= left_s:
        return None
    return DeadlineError(left_s, needed_s)
