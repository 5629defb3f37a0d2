"""QueueBounds: the most jobs, and the most device seconds, that wait for a device.

A queue that is full still has room for a tenant that has less than its share of it, which is in
proportion to the weights of all tenants with work. Jobs of the tenant that exceeds its share most
leave for it, abandoned ones first, then the newest. Every tenant may have one job in the queue.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from safelight_service.core.errors import QueueFullError
from safelight_service.core.tenant import Tenant

_RETRY_AFTER_S = 1.0
"""Retry delay of a full queue before any measurement."""


class WaitingJob(Protocol):
    """Facts of a job that decide about its place in the queue."""

    @property
    def tenant(self) -> Tenant:
        """The party that it belongs to."""

    @property
    def is_abandoned(self) -> bool:
        """Whether it has no watchers."""

    @property
    def work_s(self) -> float | None:
        """Forecast device seconds; None without measurements."""

    @property
    def estimated_wait_s(self) -> float | None:
        """Seconds until it is expected to start; None without a forecast."""


JobT = TypeVar("JobT", bound=WaitingJob)


class QueueBounds:
    """Decides which jobs may wait for a device."""

    def __init__(self, queue_size: int, queue_s: float = math.inf) -> None:
        self._queue_size = queue_size
        self._queue_s = queue_s

    def admit(self, job: JobT, waiting: Sequence[JobT], running: Sequence[JobT]) -> Sequence[JobT]:
        """Return the waiting jobs, given by their arrival, that leave the queue for a new one.

        Raises:
            QueueFullError: the job may not wait.
        """
        # An idle device starts one job at once, so one more fits.
        by_count = _Bound(self._queue_size + (not running), lambda _: 1.0)
        weights = {each.tenant.name: each.tenant.weight for each in [*waiting, *running, job]}
        leaving = by_count.make_room(job, waiting, weights)
        if leaving is None:
            raise QueueFullError(self._queue_size, by_count.wait_s(job, waiting))
        staying = [each for each in waiting if each not in leaving]
        if staying:
            by_seconds = _Bound(self._queue_s, lambda each: each.work_s or 0.0)
            leaving_too = by_seconds.make_room(job, staying, weights)
            if leaving_too is None:
                reason = (
                    f"the waiting generations need {by_seconds.sum(staying):.1f} s and this one "
                    f"{job.work_s or 0:.1f} s, of {self._queue_s:g} s for the queue"
                )
                raise QueueFullError(
                    self._queue_size, by_seconds.wait_s(job, staying), reason=reason
                )
            leaving += leaving_too
        return leaving

    def explain(self, leaving: WaitingJob) -> QueueFullError:
        """Return the error of a job that leaves the queue."""
        return QueueFullError(
            self._queue_size,
            leaving.estimated_wait_s or _RETRY_AFTER_S,
            reason="the queue is full, and a caller with less than its share of it came",
        )


@dataclass(frozen=True, slots=True)
class _Bound:
    """A limit on the sum of a cost of jobs."""

    limit: float
    cost: Callable[[WaitingJob], float]

    def sum(self, jobs: Sequence[WaitingJob]) -> float:
        return math.fsum(map(self.cost, jobs))

    def make_room(
        self, job: JobT, waiting: Sequence[JobT], weights: Mapping[str, float]
    ) -> list[JobT] | None:
        """Return the jobs that leave; None if the new one may not wait."""
        staying, leaving = list(waiting), list[JobT]()
        while self.sum(staying) + self.cost(job) > self.limit:
            victim = self._find_victim(job, staying, weights)
            if victim is None:
                return None
            staying.remove(victim)
            leaving.append(victim)
        return leaving

    def wait_s(self, job: WaitingJob, waiting: Sequence[WaitingJob]) -> float:
        """Return the seconds until enough waiting jobs are expected to have started."""
        starts_s = 0.0
        left = self.sum(waiting) + self.cost(job)
        known = [(s, each) for each in waiting if (s := each.estimated_wait_s) is not None]
        for wait_s, each in sorted(known, key=lambda pair: pair[0]):
            if left <= self.limit:
                break
            starts_s = wait_s
            left -= self.cost(each)
        return starts_s or _RETRY_AFTER_S

    def _find_victim(
        self, job: JobT, waiting: Sequence[JobT], weights: Mapping[str, float]
    ) -> JobT | None:
        """Return the job that leaves next; None if the new one has to."""
        by_tenant: dict[str, list[JobT]] = {}
        for each in waiting:
            by_tenant.setdefault(each.tenant.name, []).append(each)
        unit = self.limit / math.fsum(weights.values())
        own = by_tenant.pop(job.tenant.name, [])
        if own and self.sum(own) + self.cost(job) > unit * weights[job.tenant.name]:
            return None
        candidates = []
        for name, jobs in by_tenant.items():
            excess = self.sum(jobs) - unit * weights[name]
            if len(jobs) > 1 and excess > 0:
                newest = ([each for each in jobs if each.is_abandoned] or jobs)[-1]
                candidates.append((excess, waiting.index(newest)))
        return waiting[max(candidates)[1]] if candidates else None
