"""StepBatcher: runs jobs step by step, and merges the forwards of their images.

A step runs one forward for the first image and all that can be merged with it. While the device is
busy with that, the batcher decodes finished images and starts waiting ones, which join the next
forward. Between two steps every pipeline is suspended at an operation, so the batcher sees
all images that can share a forward.
"""

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from safelight_service.core.errors import (
    DeadlineError,
    NonFiniteImageError,
    OutOfMemoryError,
    SafelightError,
    StoppingError,
)
from safelight_service.core.timeline import SharedForward
from safelight_service.engine import hardware
from safelight_service.engine.batching.accounts.busy_clock import BusyClock
from safelight_service.engine.batching.accounts.meter import Meter
from safelight_service.engine.batching.estimates import deadlines
from safelight_service.engine.batching.estimates.arrivals import Arrivals, Expectation
from safelight_service.engine.batching.estimates.forecast import Forecast, find_seconds_alone
from safelight_service.engine.batching.forward_runner import ForwardRunner
from safelight_service.engine.batching.policy import SchedulingPolicy
from safelight_service.engine.batching.ranking import Ranking
from safelight_service.engine.batching.safety_checks import flag, group_alike
from safelight_service.engine.batching.sharing import Budget, Seats
from safelight_service.engine.image_run import ImageRun
from safelight_service.engine.job import Job
from safelight_service.engine.operations import Decode, Forward

ReportFault = Callable[[BaseException], SafelightError]
"""Logs an unexpected exception, and returns an error that is safe for callers."""


class StepBatcher:
    """Runs the jobs of one device. Used by the device thread only, except where noted."""

    def __init__(
        self,
        policy: SchedulingPolicy,
        report_fault: ReportFault,
        note_forward: Callable[[SharedForward], None] | None = None,
    ) -> None:
        self.report_fault = report_fault
        self._added: list[Job] = []
        self._late: dict[Job, DeadlineError] = {}
        """Jobs that cannot meet their deadlines; the next step ends them."""
        self._over: dict[Job, SafelightError | None] = {}
        """Jobs that are over, with their errors; the end of the current span of work ends them."""
        self._policy = policy
        self._meter = Meter()
        self.shares = self._meter.shares
        self._ranking = Ranking(policy, self._meter.shares, self._meter.late_turns)
        self._busy = BusyClock()
        self._forwards = ForwardRunner(self._busy, note_forward)
        self._forecast = Forecast()
        self._forward_s = 0.0
        """Seconds of the last forward, including its members' work up to their next operations."""
        self._completed_count = 0
        self._arrivals = Arrivals()

    @property
    def jobs(self) -> list[Job]:
        """Jobs that are not over."""
        return self._ranking.jobs

    @property
    def busy_since(self) -> float | None:
        """Start of the current operation, by time.monotonic; None between them. For any thread."""
        return self._busy.since

    @property
    def busy_s(self) -> float:
        """Seconds of all operations so far, without compilation. For any thread."""
        return self._busy.total_s

    @property
    def device_time_s(self) -> Mapping[tuple[str, str], float]:
        """Device seconds so far, by model and token. For any thread."""
        return self._meter.seconds

    def add(self, job: Job) -> None:
        """Add a job; the batcher closes its relay at the end."""
        self.jobs.append(job)
        self._added.append(job)

    def stop(self) -> None:
        """End all jobs."""
        for job in tuple(self.jobs):
            self._end(job, StoppingError())

    def step(self) -> None:
        """Advance the jobs by one forward."""
        for job in [job for job in self.jobs if job.is_cancelled]:
            self._end(job, StoppingError())  # read only if the caller did not cancel
        self._ranking.sort()
        self._end_late()
        completed_count = self._completed_count
        members = self._gather()
        if not members:  # starts delay no image now
            self._start()
            members = self._gather()
        if members:
            self._run_forward(members)
        self._decode()
        self._check()
        self._prepare()
        self._start()
        self._busy.start()
        self._meter.end_step(is_last=not self.jobs)
        self._busy.stop()
        if self._completed_count > completed_count:
            self._arrivals.note_completed(self._completed_count - completed_count)

    def expect(self) -> Expectation:
        """Return how long an idle device waits for further jobs."""
        return self._arrivals.expect(self._forward_s)

    def look_ahead(self) -> None:
        """Update the forecast of all images; the next step ends jobs that are too late by it."""
        self._forecast.make(
            [image for job in self.jobs for image in job.images if not image.has_ended],
            self.shares.virtual_s,
        )
        for job in self.jobs:
            if job.work_s is None and not job.is_started:
                job.work_s = find_seconds_alone(job)
        self._late = deadlines.find_late(self.jobs, deadlines.check_again)

    def _end_late(self) -> None:
        """End jobs that cannot meet their deadlines: new ones by a fresh forecast.

        While nothing runs, each refusal makes the next one less likely: only work that runs
        can correct the forecast.
        """
        is_idle = not any(job.is_started for job in self.jobs)
        new = {job for job in self._added if job.deadline_at is not None}
        self._added.clear()
        while new:
            self.look_ahead()
            added = [job for job in self.jobs if job in new]
            late = deadlines.find_late(added, deadlines.check_arrival)
            if not late:
                break
            self._end_early(late, is_idle=is_idle)
            self._late = {}  # without those, these may be in time
            new -= late.keys()
        self._end_early(self._late, is_idle=is_idle)
        self._late = {}

    def _end_early(self, late: Mapping[Job, DeadlineError], *, is_idle: bool) -> None:
        for job, error in late.items():
            self._end(job, error)
            if is_idle:
                job.cost_model.doubt()

    def _decode(self) -> None:
        """Decode images within the time budget for decodes."""
        waiting = [image for image in self._ranking.images if isinstance(image.operation, Decode)]
        budget = self._allow(len(waiting))
        for image in waiting:
            if budget.is_spent:
                break
            seconds = self._run_timed(image, functools.partial(_decode, image), self._note_decode)
            budget.spend(seconds, image.job.cost_model.decode)

    def _check(self) -> None:
        """Run the safety checks of all images that wait for one."""
        for images in group_alike(self._ranking.images):
            note = images[0].job.cost_model.check.note
            with self._measured([(image.job, 1) for image in images], note):
                for image, outcome in zip(images, flag(images, self._busy), strict=True):
                    self._deliver(image, outcome)

    def _deliver(self, image: ImageRun, outcome: Any) -> None:
        """Resume an image with the result or the error of its operation."""
        resume = image.fail if isinstance(outcome, Exception) else image.resume
        self._advance(image, functools.partial(resume, outcome))

    def _prepare(self) -> None:
        """Prepare one more graph for the first forward that waits for its graphs."""
        held = next((image for image in self._ranking.images if image.is_held), None)
        if held is not None:
            self._busy.stop()  # compiling may take minutes, and is no hang
            held.job.model.prepare(held.job.cost_model, held.operation_as(Forward))

    def _start(self) -> None:
        """Start images that fit into the next forward, within the time budget for starts."""
        waiting_count = sum(not image.is_started for image in self._ranking.images)
        budget = self._allow(waiting_count)
        seats = Seats(self._policy)
        for image in self._ranking.images:
            if image.is_started and not image.is_runnable:
                continue
            cost_model, rate = image.job.cost_model, self._ranking.rate_of(image)
            if not seats.is_for(cost_model):
                continue
            if not image.is_started:
                expected = cost_model.demand(is_guided=image.job.is_guided).row_count
                if budget.is_spent or not seats.has_room(cost_model, expected):
                    break
                if not seats.is_worth(cost_model, expected, rate):
                    continue
                seconds = self._run_timed(image, image.start, _note_start)
                budget.spend(seconds, cost_model.before_steps)
                if isinstance(image.operation, Forward):
                    cost_model.note_first(image.first_demand, is_guided=image.job.is_guided)
                    image.job.model.limit(cost_model, image.operation)
            if image.is_runnable and not seats.offer(image, rate):
                break

    def _allow(self, waiting_count: int) -> Budget:
        """Return the time budget of a step for images that wait for something other than a forward.

        Forwards and other work get time in proportion to the images that wait for them.
        """
        denoising_count = sum(
            isinstance(image.operation, Forward) for image in self._ranking.images
        )
        if not denoising_count:
            return Budget(math.inf)
        return Budget(self._forward_s * waiting_count / denoising_count)

    def _run_timed(
        self, image: ImageRun, run: Callable[[], None], note: Callable[[ImageRun, float], None]
    ) -> float | None:
        """Advance an image by `run`; once the seconds are known, charge them and call `note`.

        Returns the seconds; None while the device is still busy with it.
        """
        with self._measured([(image.job, 1)], functools.partial(note, image)) as span:
            self._advance(image, run)
        return span.seconds

    @contextmanager
    def _measured(
        self, rows: Sequence[tuple[Job, int]], note: hardware.NoteSeconds
    ) -> Iterator[hardware.Span]:
        """Charge the block's work to its jobs, by rows, and then end those that are over."""
        span = self._meter.begin(rows, note)
        yield span
        self._meter.end(span)
        self._busy.stop()
        for job, error in self._over.items():
            if error is None:
                self._complete(job)
            self._end(job, error)
        self._over.clear()

    def _note_decode(self, image: ImageRun, seconds: float) -> None:
        image.job.cost_model.decode.note(seconds)
        self._forecast.learn(image, time.monotonic())

    def _run_forward(self, members: Sequence[ImageRun]) -> None:
        """Run one forward for images that share it, and advance them to their next operations."""
        cost_model = members[0].job.cost_model
        rows = [(image.job, image.operation_as(Forward).row_count) for image in members]
        row_count = sum(count for _, count in rows)
        is_typical = False

        def note(seconds: float) -> None:
            self._forward_s = seconds
            if is_typical:
                cost_model.note_forward(row_count, seconds)

        with self._measured(rows, note):
            outcomes = self._forwards.run(members)
            # The device may finish after later forwards have run.
            is_typical = not self._forwards.was_split and not isinstance(outcomes[0], Exception)
            for image, outcome in zip(members, outcomes, strict=True):
                self._deliver(image, outcome)
        for image in members:
            image.draw_ahead()

    def _gather(self) -> list[ImageRun]:
        """Choose the members of the next forward."""
        seats = Seats(self._policy)
        for image in self._ranking.images:
            if image.is_runnable and not seats.offer(image, self._ranking.rate_of(image)):
                break
        return seats.members

    def _advance(self, image: ImageRun, run: Callable[[], None]) -> None:
        """Advance an image by `run`; its job is over if it fails or is complete.

        Raises:
            Exception: the error of `run`, if the device has stopped answering.
        """
        if image.job not in self.jobs or image.job in self._over:
            return  # ended by the failure of another image
        self._busy.start()
        try:
            run()
        except Exception as fault:
            if hardware.is_out_of_memory(fault):
                hardware.empty_cache()
                self._fail(image.job, OutOfMemoryError())
                return
            if not hardware.is_answering(image.job.model.adapter.execution_device):
                raise
            if isinstance(fault, NonFiniteImageError):  # by the pipeline's own safety checker
                self._fail(image.job, fault)
            else:
                self._fail(image.job, self.report_fault(fault))
        else:
            if image.job.has_ended:
                self._over[image.job] = None

    def _fail(self, job: Job, error: SafelightError) -> None:
        self._over[job] = error
        for image in job.images:
            image.stop()

    def _complete(self, job: Job) -> None:
        """Count a job, and settle its device time."""
        self._completed_count += 1
        self._meter.settle(job)

    def _end(self, job: Job, error: SafelightError | None) -> None:
        if job not in self.jobs:
            return
        self.jobs.remove(job)
        for image in job.images:
            image.stop()
        job.relay.close(error)


def _decode(image: ImageRun) -> None:
    """Decode an image, and resume it with the pixels."""
    image.resume(hardware.run_with_room(image.operation_as(Decode).run))


def _note_start(image: ImageRun, seconds: float) -> None:
    if not image.recovered_step_count:
        image.job.cost_model.before_steps.note(seconds)
