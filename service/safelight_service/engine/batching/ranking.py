"""Ranking: the jobs of a device, in the order of their next step."""

import time

from safelight_service.engine.batching.accounts.fair_shares import FairShares
from safelight_service.engine.batching.accounts.late_turns import LateTurns
from safelight_service.engine.batching.policy import SchedulingPolicy, find_active, rank_of
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.job import Job


class Ranking:
    """Sorts the jobs before each step. Used by the device thread only."""

    def __init__(self, policy: SchedulingPolicy, shares: FairShares, late_turns: LateTurns) -> None:
        self.jobs: list[Job] = []
        """Sorted by their ranks before the present step; those added since are at the end."""
        self._policy = policy
        self._shares = shares
        self._late_turns = late_turns
        self._leading: Job | None = None
        """Late job that leads the present step in spite of its rank."""

    @property
    def images(self) -> list[ImageRun]:
        """All images, by the priority of their jobs in this step."""
        jobs = self.jobs
        if self._leading in jobs:
            jobs = [self._leading, *(job for job in jobs if job is not self._leading)]
        return [image for job in jobs for image in job.images]

    def sort(self) -> None:
        """Sort the jobs for a step."""
        self._leading = None
        if not self.jobs:
            return
        self._shares.activate(find_active(self.jobs))
        now = time.monotonic()
        virtual_s = self._shares.virtual_s
        ranks = {job: rank_of(job, now, self._policy, virtual_s) for job in self.jobs}
        self.jobs.sort(key=ranks.__getitem__)
        self._late_turns.note(self.jobs, ranks)
        self._leading = self._late_turns.find(self.jobs[0])

    def rate_of(self, image: ImageRun) -> float:
        """Return the images per forward of an image, whose decode counts as one more step.

        A late image counts 0: it must not make others late.
        """
        return 0.0 if self._late_turns.is_late(image.job) else 1 / (image.computed_steps_left + 1)
