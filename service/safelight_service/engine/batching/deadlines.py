"""Deadlines: jobs that cannot finish in time, which end early and free their steps."""

import time

from safelight_service.core.errors import DeadlineError
from safelight_service.engine.batching.forecast import find_seconds_alone
from safelight_service.engine.job import Job


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
