"""StepBatcher: runs jobs step by step, sharing forwards among all that can.

A step runs one forward for the first image and all that can be merged with it. While the device is
busy with that, images that are ready are decoded and waiting ones are started, so that they can
join the next forward. Between two steps every pipeline stands at a heavy call, so none that could
have shared a forward is ever missed.
"""

import functools
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

import structlog
import torch
from torch import Tensor

from safelight_service.core.errors import (
    DeadlineError,
    OutOfMemoryError,
    SafelightError,
    StoppingError,
)
from safelight_service.core.timeline import SharedForward
from safelight_service.engine import hardware
from safelight_service.engine.batching.cost_model import Average, CostModel
from safelight_service.engine.batching.forecast import Forecast
from safelight_service.engine.batching.policy import Priority, SchedulingPolicy
from safelight_service.engine.batching.sharing import Budget, Seats
from safelight_service.engine.calls import Check, Decode, Forward
from safelight_service.engine.job import ImageRun, Job

C = TypeVar("C")

_log = structlog.get_logger()

ReportFault = Callable[[BaseException], SafelightError]
"""Logs an unexpected exception and returns what the caller may know of it."""


_LONGEST_PAUSE_S = 0.003
_PAUSE_SHARE = 1 / 16
"""Of a forward: what an idle device waits for one more job after each that has come."""


class Expectation(NamedTuple):
    """What an idle device waits for, once a job has come."""

    job_count: int
    patience_s: float
    """Longest wait until that many jobs have come."""
    pause_s: float
    """Longest wait for one more after each."""


class StepBatcher:
    """The jobs of one device; belongs to the device thread."""

    def __init__(
        self,
        order: SchedulingPolicy,
        report_fault: ReportFault,
        note_forward: Callable[[SharedForward], None] | None = None,
    ) -> None:
        self.jobs: list[Job] = []
        self.report_fault = report_fault
        self.call_began_at: float | None = None
        """When the call that is being made began, by time.monotonic; None between steps."""
        self._added: list[Job] = []
        self._policy = order
        self._note_forward = note_forward
        self._forecast = Forecast()
        self._run_ahead = hardware.RunAhead()
        self._forward_s = 0.0
        """How long the last forward took, and what its members did until their next calls."""
        self._completed_count = 0
        self._ended_together = 0
        """Jobs that the last step to complete any has completed, and when that was."""
        self._ended_at = 0.0
        self._was_split = False
        """Whether the last forward was run in parts, after it had failed as a whole."""

    def add(self, job: Job) -> None:
        """Take a job in; its relay is closed when it has ended."""
        self.jobs.append(job)
        self._added.append(job)

    def stop(self) -> None:
        """End all jobs."""
        for job in tuple(self.jobs):
            self._end(job, StoppingError())

    def step(self) -> None:
        """Bring the jobs on by one forward."""
        for job in [job for job in self.jobs if job.is_cancelled]:
            self._end(job, StoppingError())  # heard only if it was not the caller who cancelled
        self._rank()
        self._refuse_late()
        completed_count = self._completed_count
        members = self._gather()
        if not members:  # nobody is held up by starts
            self._start()
            members = self._gather()
        if members:
            self._run_forward(members)
        self._decode()
        self._check()
        self._prepare()
        self._start()
        self.call_began_at = time.monotonic()
        if self.jobs:
            self._run_ahead.end_step()
        else:
            self._run_ahead.catch_up()
        self.call_began_at = None
        if self._completed_count > completed_count:
            self._ended_together = self._completed_count - completed_count
            self._ended_at = time.monotonic()

    def expect(self) -> Expectation:
        """Return what is likely to come to a device that has nothing to do.

        Callers whose images were finished together tend to ask for others at the same time. To
        wait for them as long as an image's share of a forward costs less than a forward that they
        miss: it would leave them one step behind for good.
        """
        pause_s = min(_LONGEST_PAUSE_S, self._forward_s * _PAUSE_SHARE)
        if not self._ended_together or time.monotonic() > self._ended_at + self._forward_s:
            return Expectation(0, 0.0, pause_s)
        return Expectation(self._ended_together, self._forward_s / self._ended_together, pause_s)

    def look_ahead(self) -> None:
        """Work out when each image will start and finish."""
        self._forecast.make([image for image in self._images() if not image.has_ended])

    def _images(self) -> list[ImageRun]:
        """All images, first those of the job that comes first."""
        return [image for job in self.jobs for image in job.images]

    def _rank(self) -> None:
        now = time.monotonic()
        self.jobs.sort(key=lambda job: (self._policy(_priority(job, now)), job.arrived_at))

    def _refuse_late(self) -> None:
        """End those that have come since the last step and cannot be ready in time."""
        bound = [(job, job.deadline_at) for job in self._added if job.deadline_at is not None]
        self._added.clear()
        if bound:
            self.look_ahead()
        now = time.monotonic()
        for job, deadline_at in bound:
            needed_s = job.expected_s(now)
            if needed_s is not None and now + needed_s > deadline_at:
                self._end(job, DeadlineError(deadline_at - now, needed_s))

    def _decode(self) -> None:
        """Run decodes, for no longer than is fair to those that wait for a forward."""
        waiting = [image for image in self._images() if isinstance(image.call, Decode)]
        budget = self._allow(len(waiting))
        for image in waiting:
            if budget.is_spent:
                break
            seconds = self._run_timed(image, functools.partial(_decode, image), self._note_decode)
            budget.spend(_expect(seconds, image.job.cost_model.decode))

    def _check(self) -> None:
        """Check the safety of the images that wait for it, as many at once as are alike."""
        alike: dict[Hashable, list[ImageRun]] = {}
        for image in self._images():
            if isinstance(image.call, Check):
                alike.setdefault((image.job.model, image.call.images.shape), []).append(image)
        for images in alike.values():
            first = images[0].job
            device = first.model.adapter.execution_device
            span = self._run_ahead.begin(device, first.cost_model.check.note, first.model)
            for image, outcome in zip(images, self._flag(images), strict=True):
                self._bring_on(image, outcome)
            self._run_ahead.end(span)

    def _flag(self, images: Sequence[ImageRun]) -> list[Tensor | Exception]:
        """Return the flag of each image, or what checking it raises."""
        self.call_began_at = time.monotonic()
        checker = images[0].job.model.safety_checker
        assert checker is not None
        try:
            flags = checker.check(torch.cat([_call_of(image, Check).images for image in images]))
            return list(flags.unbind())
        except Exception as error:
            if len(images) == 1:
                return [error]
        return [self._flag([image])[0] for image in images]

    def _bring_on(self, image: ImageRun, outcome: Any) -> None:
        """Let an image go on with what has come of its call."""
        go = image.fail if isinstance(outcome, Exception) else image.resume
        self._go_on(image, functools.partial(go, outcome))

    def _prepare(self) -> None:
        """Bring on the first forward that waits for its graphs by one of them; others go on."""
        held = next((image for image in self._images() if _is_held(image)), None)
        if held is not None:
            self.call_began_at = None  # it may compile for minutes, and the device is not lost
            held.job.model.prepare(held.job.cost_model, _call_of(held, Forward))

    def _start(self) -> None:
        """Start images that will have room in the next forward, for no longer than is fair."""
        waiting_count = sum(not image.is_started for image in self._images())
        budget = self._allow(waiting_count)
        cost_model: CostModel | None = None
        seats = Seats()
        for image in self._images():
            if image.is_started and not _is_runnable(image):
                continue
            cost_model = cost_model or image.job.cost_model
            if image.job.cost_model is not cost_model:
                continue
            if not image.is_started:
                expected = cost_model.demand(is_guided=image.job.is_guided).row_count
                if budget.is_spent or not seats.has_room(cost_model, expected):
                    break
                seconds = self._run_timed(image, image.start, _note_start)
                budget.spend(_expect(seconds, cost_model.before_steps))
                if isinstance(image.call, Forward):
                    cost_model.note_rows(image.call.row_count, is_guided=image.job.is_guided)
                    image.job.model.limit(cost_model, image.call)
            if not _is_runnable(image) or not seats.matches(_call_of(image, Forward)):
                continue
            if not seats.take(cost_model, _call_of(image, Forward)):
                break

    def _allow(self, waiting_count: int) -> Budget:
        """Return the time of a step for so many images that wait for anything but a forward.

        Forwards and the rest get time in proportion to how many images wait for either.
        """
        denoising_count = sum(isinstance(image.call, Forward) for image in self._images())
        if not denoising_count:
            return Budget(math.inf)
        return Budget(self._forward_s * waiting_count / denoising_count)

    def _run_timed(
        self, image: ImageRun, go: Callable[[], None], note: Callable[[ImageRun, float], None]
    ) -> float | None:
        """Let an image go on; return the seconds that took, None while the device is not done.

        Have them noted as soon as they are known.
        """
        device = image.job.model.adapter.execution_device
        span = self._run_ahead.begin(device, functools.partial(note, image), image.job.model)
        self._go_on(image, go)
        self._run_ahead.end(span)
        return span.seconds

    def _note_decode(self, image: ImageRun, seconds: float) -> None:
        image.job.cost_model.decode.note(seconds)
        self._forecast.learn(image, time.monotonic())

    def _run_forward(self, members: Sequence[ImageRun]) -> None:
        """Run one forward for images that can share it, and bring them to their next calls."""
        cost_model = members[0].job.cost_model
        row_count = sum(_call_of(image, Forward).row_count for image in members)
        is_typical = False

        def note(seconds: float) -> None:
            self._forward_s = seconds
            if is_typical:
                cost_model.note_forward(row_count, seconds)

        model = members[0].job.model
        span = self._run_ahead.begin(model.adapter.execution_device, note, model)
        self._was_split = False
        outcomes = self._forward(members)
        # Noted later, when the device has finished, and others have been run since.
        is_typical = not self._was_split and not isinstance(outcomes[0], Exception)
        for image, outcome in zip(members, outcomes, strict=True):
            self._bring_on(image, outcome)
        self._run_ahead.end(span)
        for image in members:
            image.draw_ahead()

    def _gather(self) -> list[ImageRun]:
        """Choose the members of the next forward among the images that stand at one."""
        members: list[ImageRun] = []
        cost_model: CostModel | None = None
        seats = Seats()
        for image in self._images():
            if not _is_runnable(image):
                continue
            call = _call_of(image, Forward)
            cost_model = cost_model or image.job.cost_model
            if image.job.cost_model is not cost_model or not seats.matches(call):
                continue
            if not seats.take(cost_model, call):
                break
            members.append(image)
        return members

    def _forward(self, members: Sequence[ImageRun]) -> list[Any]:
        """Run the members' forwards as one; return what each alone would return or raise."""
        self.call_began_at = began_at = time.monotonic()
        model, cost_model = members[0].job.model, members[0].job.cost_model
        calls = [_call_of(image, Forward) for image in members]
        row_count = sum(call.row_count for call in calls)
        run = functools.partial(model.merger.run, model.forward, [each.arguments for each in calls])
        try:
            results: list[Any] = run() if len(members) > 1 else _run_with_room(run)
        except Exception as error:
            if len(members) == 1:
                return [error]
            error_type, has_no_room = type(error).__name__, hardware.is_out_of_memory(error)
        else:
            for image in members:
                image.widths[len(members)] += 1
            cost_model.note_merged(len(members), row_count)
            if self._note_forward is not None:
                steps = tuple((image.timeline, image.step_count) for image in members)
                self._note_forward(SharedForward(began_at, time.monotonic(), row_count, steps))
            return results
        # Only now, when the error holds on to nothing that the forward had made.
        self._was_split = True
        if has_no_room:
            hardware.empty_cache()
            cost_model.halve_room(row_count)
            half = len(members) // 2
            return [*self._forward(members[:half]), *self._forward(members[half:])]
        outcomes = [self._forward([image])[0] for image in members]
        if not any(isinstance(outcome, Exception) for outcome in outcomes):
            cost_model.stop_merging()  # it was none of them that failed
            _log.warning("merging_failed", model=model.name, error_type=error_type)
        return outcomes

    def _go_on(self, image: ImageRun, go: Callable[[], None]) -> None:
        """Let an image go on to its next call, and see to it if that was the end of it.

        Raises:
            Exception: what went wrong, where the device has stopped answering since.
        """
        if image.job not in self.jobs:
            return  # another image of the job has just failed, and ended them all
        self.call_began_at = time.monotonic()
        try:
            go()
        except Exception as fault:
            if hardware.is_out_of_memory(fault):
                hardware.empty_cache()
                self._end(image.job, OutOfMemoryError())
                return
            if not hardware.is_answering(image.job.model.adapter.execution_device):
                raise
            self._end(image.job, self.report_fault(fault))
        else:
            if image.job.has_ended:
                self._learn(image.job)
                self._end(image.job, None)
                self._completed_count += 1

    def _learn(self, job: Job) -> None:
        """Take what a job that has ended cost into account for the next ones like it."""
        for image in job.images:
            job.cost_model.note_demand(image.demand, is_guided=job.is_guided)

    def _end(self, job: Job, error: SafelightError | None) -> None:
        if job not in self.jobs:
            return
        self.jobs.remove(job)
        for image in job.images:
            image.stop()
        job.relay.close(error)


def _run_with_room(run: Callable[[], Any]) -> Any:
    """Run what, if memory runs out, is tried again without what torch keeps for later."""
    try:
        return run()
    except Exception as error:
        if not hardware.is_out_of_memory(error):
            raise
    hardware.empty_cache()
    return run()


def _decode(image: ImageRun) -> None:
    """Decode an image, and bring it to its next call or its end."""
    image.resume(_run_with_room(_call_of(image, Decode).run))


def _note_start(image: ImageRun, seconds: float) -> None:
    image.job.cost_model.before_steps.note(seconds)


def _expect(seconds: float | None, average: Average) -> float:
    """Return seconds, or what they are expected to be; without end where nothing is known."""
    return next((each for each in (seconds, average.value) if each is not None), math.inf)


def _call_of(image: ImageRun, kind: type[C]) -> C:
    assert isinstance(image.call, kind)
    return image.call


def _is_runnable(image: ImageRun) -> bool:
    """Whether an image stands at a forward that can be run now."""
    return isinstance(image.call, Forward) and not _is_held(image)


def _is_held(image: ImageRun) -> bool:
    """Whether an image that has begun waits until forwards like its own have been prepared."""
    return (
        isinstance(image.call, Forward)
        and not image.widths
        and not image.job.model.is_ready_for(image.call)
    )


def _priority(job: Job, now: float) -> Priority:
    return Priority(job.arrived_at, now - job.arrived_at, functools.partial(_remaining_s, job))


def _remaining_s(job: Job) -> float:
    """Seconds that a job would take alone; its steps, while nothing like it was measured."""
    total = 0.0
    for image in job.images:
        demand = image.demand
        forward_s = job.cost_model.forward_s(demand.row_count) or 1.0
        total += image.steps_left * demand.forwards_per_step * forward_s
    return total
