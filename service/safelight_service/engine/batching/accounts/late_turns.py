"""LateTurns: device time for late jobs, which other jobs of their tenant would keep waiting.

While a tenant has late jobs and others, a part of its device time is for the late job that arrived
first. So this job ends after at most 1 / SHARE times its remaining seconds, counted in device time
of its tenant, and each later one in its turn.
"""

from collections.abc import Mapping, Sequence

from safelight_service.engine.batching.policy import Rank
from safelight_service.engine.job import Job

SHARE = 0.05
"""Part of a tenant's device time."""


class LateTurns:
    """Time owed to the first late job of each tenant. Used by the device thread only."""

    def __init__(self) -> None:
        self._first: dict[str, Job] = {}
        """First late job of each tenant that has others."""
        self._owed_s: dict[str, float] = {}
        self._late: set[Job] = set()

    def is_late(self, job: Job) -> bool:
        """Whether a job was late when the jobs were noted."""
        return job in self._late

    def note(self, jobs: Sequence[Job], ranks: Mapping[Job, Rank]) -> None:
        """Note the present jobs, by their ranks."""
        self._late = {job for job in jobs if ranks[job].place.is_late}
        late: dict[str, Job] = {}
        punctual: set[str] = set()
        for job in jobs:
            rank = ranks[job]
            if rank.place.is_late and not rank.is_abandoned:
                late.setdefault(job.tenant.name, job)
            elif not rank.is_abandoned:
                punctual.add(job.tenant.name)
        self._first = {name: job for name, job in late.items() if name in punctual}
        self._owed_s = {name: s for name, s in self._owed_s.items() if name in self._first}

    def charge(self, job: Job, seconds: float) -> None:
        """Count device seconds of a job."""
        name = job.tenant.name
        first = self._first.get(name)
        if first is not None:
            spent_s = seconds if job is first else 0.0
            self._owed_s[name] = self._owed_s.get(name, 0.0) + SHARE * seconds - spent_s

    def find(self, leading: Job) -> Job | None:
        """Return the late job that runs in place of the leading one of its tenant."""
        name = leading.tenant.name
        return self._first.get(name) if self._owed_s.get(name, 0.0) > 0 else None

    def clear(self) -> None:
        """Forget all jobs, since an idle device has none."""
        self._first.clear()
        self._owed_s.clear()
        self._late.clear()
