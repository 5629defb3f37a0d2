"""StepBatcher: runs jobs turn by turn, sharing forwards among all that can.

In a turn images that want to be decoded are decoded, those that wait are started if there is
room for them, and one forward is run for the first image and all that can be merged with it.
Between two turns every pipeline stands at a heavy call, so none that could have shared a forward
is ever missed.
"""

import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from safelight_service.engine import hardware
from safelight_service.engine.calls import Decode, Forward
from safelight_service.engine.forecast import Forecast
from safelight_service.engine.job import ImageRun, Job
from safelight_service.engine.lane import Lane
from safelight_service.engine.order import Claim, Order
from safelight_service.errors import (
    DeadlineError,
    OutOfMemoryError,
    SafelightError,
    StoppingError,
)
from safelight_service.trail import SharedForward

_log = structlog.get_logger()

ReportFault = Callable[[BaseException], SafelightError]
"""Logs an unexpected exception and returns what the caller may know of it."""


class StepBatcher:
    """The jobs of one device; belongs to the device thread."""

    def __init__(
        self,
        order: Order,
        report_fault: ReportFault,
        note_forward: Callable[[SharedForward], None] | None = None,
    ) -> None:
        self.jobs: list[Job] = []
        self.report_fault = report_fault
        self.call_began_at: float | None = None
        """When the call that is being made began, by time.monotonic; None between turns."""
        self._added: list[Job] = []
        self._order = order
        self._note_forward = note_forward
        self._forecast = Forecast()
        self._run_ahead = hardware.RunAhead()
        self._forward_s = 0.0
        """How long the last forward took, and what its members did until their next calls."""

    def add(self, job: Job) -> None:
        """Take a job in; its outbox is closed when it has ended."""
        self.jobs.append(job)
        self._added.append(job)

    def stop(self) -> None:
        """End all jobs."""
        for job in tuple(self.jobs):
            self._end(job, StoppingError())

    def turn(self) -> None:
        """Bring the jobs on by one forward."""
        for job in [job for job in self.jobs if job.is_cancelled]:
            self._end(job, StoppingError())  # heard only if it was not the caller who cancelled
        self._rank()
        self._refuse_late()
        self._decode()
        self._prepare()
        self._step()
        self.call_began_at = None

    def look_ahead(self) -> None:
        """Work out when each image will start and finish."""
        self._forecast.make([image for image in self._images() if not image.has_ended])

    def _images(self) -> list[ImageRun]:
        """All images, first those of the job that comes first."""
        return [image for job in self.jobs for image in job.images]

    def _rank(self) -> None:
        now = time.monotonic()
        self.jobs.sort(key=lambda job: (self._order(_claim(job, now)), job.arrived_at))

    def _refuse_late(self) -> None:
        """End those that have come since the last turn and cannot be ready in time."""
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
        if waiting:
            until = self._allow(len(waiting))
        for image in waiting:
            self._go_on(image, functools.partial(_decode, image))
            if time.monotonic() >= until:
                break

    def _allow(self, waiting_count: int) -> float:
        """Return until when a turn may serve so many images that wait for something else.

        Forwards and the rest get time in proportion to how many images wait for either.
        """
        self.call_began_at = time.monotonic()
        self._run_ahead.catch_up()  # so that the time is theirs
        denoising_count = sum(isinstance(image.call, Forward) for image in self._images())
        share_s = self._forward_s * waiting_count / denoising_count if denoising_count else math.inf
        return time.monotonic() + share_s

    def _prepare(self) -> None:
        """Bring on the first forward that waits for its graphs by one of them; others go on."""
        held = next((image for image in self._images() if _is_held(image)), None)
        if held is not None:
            self.call_began_at = None  # it may compile for minutes, and the device is not lost
            held.job.model.prepare(held.job.lane, _forward_of(held))

    def _step(self) -> None:
        """Run one forward for the first image that wants one, and those that can share it."""
        members = self._gather()
        if not members:
            return
        lane = members[0].job.lane
        if lane.wants_profile:
            self.call_began_at = time.monotonic()
            members[0].job.model.measure_widths(lane, _forward_of(members[0]))
        began_at = time.monotonic()
        row_count = sum(_forward_of(image).row_count for image in members)
        for image, outcome in zip(members, self._forward(members), strict=True):
            go = image.fail if isinstance(outcome, Exception) else image.resume
            self._go_on(image, functools.partial(go, outcome))

        def note(seconds: float) -> None:
            self._forward_s = seconds
            lane.note_forward(row_count, seconds)

        self._run_ahead.bound(members[0].job.model.adapter.execution_device, began_at, note)

    def _gather(self) -> list[ImageRun]:
        """Choose the members of the next forward, and start those that have not been.

        One at least, where there is room, and no more than is fair to those that have been.
        """
        members: list[ImageRun] = []
        row_count = 0
        until: float | None = None
        lane: Lane | None = None
        for image in self._images():
            if image.has_ended or isinstance(image.call, Decode) or _is_held(image):
                continue
            lane = lane or image.job.lane
            if image.job.lane is not lane:
                continue
            if not image.is_started:
                expected = lane.demand(is_guided=image.job.is_guided).row_count
                if not lane.has_room(len(members) + 1, row_count + expected):
                    break
                if until is None:
                    until = self._allow(sum(not each.is_started for each in self._images()))
                elif time.monotonic() >= until:
                    break
                self._go_on(image, image.start)
            if not isinstance(image.call, Forward) or _is_held(image):
                continue
            if members and image.call.key != _forward_of(members[0]).key:
                continue
            if not lane.has_room(len(members) + 1, row_count + image.call.row_count):
                break
            members.append(image)
            row_count += image.call.row_count
        return members

    def _forward(self, members: Sequence[ImageRun]) -> list[Any]:
        """Run the members' forwards as one; return what each alone would return or raise."""
        self.call_began_at = began_at = time.monotonic()
        model, lane = members[0].job.model, members[0].job.lane
        calls = [_forward_of(image) for image in members]
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
            if self._note_forward is not None:
                row_count = sum(call.row_count for call in calls)
                steps = tuple((image.trail, image.step_count) for image in members)
                self._note_forward(SharedForward(began_at, time.monotonic(), row_count, steps))
            return results
        # Only now, when the error holds on to nothing that the forward had made.
        if has_no_room:
            hardware.empty_cache()
            lane.halve_cap(sum(call.row_count for call in calls))
            half = len(members) // 2
            return [*self._forward(members[:half]), *self._forward(members[half:])]
        outcomes = [self._forward([image])[0] for image in members]
        if not any(isinstance(outcome, Exception) for outcome in outcomes):
            lane.merge_no_more()  # it was none of them that failed
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

    def _learn(self, job: Job) -> None:
        """Take what a job that has ended cost into account for the next ones like it."""
        for image in job.images:
            job.lane.before_steps.note(image.trail.text_encode_s)
            job.lane.note_demand(image.demand, is_guided=job.is_guided)
            self._forecast.learn(image)

    def _end(self, job: Job, error: SafelightError | None) -> None:
        if job not in self.jobs:
            return
        self.jobs.remove(job)
        for image in job.images:
            image.stop()
        job.outbox.close(error)


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
    """Decode an image, and learn how long that takes."""
    assert isinstance(image.call, Decode)
    began_at = time.monotonic()
    pixels = _run_with_room(image.call.run)
    hardware.synchronize(image.job.model.adapter.execution_device)
    image.resume(pixels)
    image.job.lane.after_steps.note(time.monotonic() - began_at)


def _forward_of(image: ImageRun) -> Forward:
    assert isinstance(image.call, Forward)
    return image.call


def _is_held(image: ImageRun) -> bool:
    """Whether an image that has begun waits until forwards like its own have been prepared."""
    return (
        isinstance(image.call, Forward)
        and not image.widths
        and not image.job.model.is_ready_for(image.call)
    )


def _claim(job: Job, now: float) -> Claim:
    remaining = sum(_remaining_s(image) for image in job.images)
    return Claim(job.arrived_at, remaining, now - job.arrived_at)


def _remaining_s(image: ImageRun) -> float:
    """Seconds that an image would take alone; its steps, while nothing like it was measured."""
    demand = image.demand
    forward_s = image.job.lane.forward_s(demand.row_count) or 1.0
    return image.steps_left * demand.forwards_per_step * forward_s
