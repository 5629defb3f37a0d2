"""DeviceWorker: the thread that does all heavy work of one device.

The device is lost when it refuses all work, when an operation hangs, or when the thread has died.
This process cannot recover from that: the worker ends all jobs and refuses new ones.

All forwards run on this thread, those of text encoders and VAEs included. Grad mode and CUDA
state are local to a thread. On a CPU each further thread would add a team of OpenMP threads.
"""

import functools
import math
import threading
import time
from collections.abc import Mapping, Sequence

import structlog
import torch

from safelight_service.core.errors import DeviceLostError, StoppingError
from safelight_service.core.events import Queued
from safelight_service.engine import hardware
from safelight_service.engine.batching.estimates.forecast import find_seconds_alone
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.compilation.compile_watch import CompileWatch
from safelight_service.engine.job import Job
from safelight_service.engine.queue_bounds import QueueBounds

_log = structlog.get_logger()

_LOOK_EVERY_S = 0.5
"""Maximum age of estimates while no job arrives, starts or ends."""

_PATIENCE_S = 5.0
"""Longest wait for the current operation when the worker stops; it may hang."""


class DeviceWorker:
    """A bounded queue of jobs, and the thread that runs them on one device."""

    def __init__(
        self,
        device: torch.device,
        bounds: QueueBounds,
        batcher: StepBatcher,
        compile_watch: CompileWatch | None = None,
    ) -> None:
        self._device = device
        self._bounds = bounds
        self._batcher = batcher
        self._compile_watch = compile_watch
        self._arrived: list[Job] = []
        self._waiting: list[Job] = []
        self._seen: set[tuple[Job, bool]] = set()
        self._looked_at = 0.0
        self._refusal: type[StoppingError | DeviceLostError] | None = None
        """Error that refuses new jobs; None while jobs are accepted."""
        self._is_stopping = False
        self._has_ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"safelight-{device}", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether the device is lost."""
        return self._refusal is DeviceLostError

    @property
    def busy_s(self) -> float:
        """Seconds since the current operation began, or since torch compiled; 0 between steps."""
        began_at = self._batcher.busy_since
        if began_at is None:
            return 0.0
        if self._compile_watch is not None:
            return self._compile_watch.seconds_since(began_at)
        return time.monotonic() - began_at

    @property
    def total_busy_s(self) -> float:
        """Seconds of all operations so far, without compilation."""
        return self._batcher.busy_s

    @property
    def device_time_s(self) -> Mapping[tuple[str, str], float]:
        """Device seconds so far, by model and token."""
        return self._batcher.device_time_s

    def submit(self, job: Job) -> None:
        """Queue a job; the worker closes its relay at the end.

        Jobs that leave the queue for it end with QueueFullError.

        Raises:
            QueueFullError: the queue has no room for it.
            StoppingError: the worker is draining or stopping.
            DeviceLostError: the device is lost.
        """
        with self._changed:
            if self._refusal is not None:
                raise self._refusal
            self._drop_started()
            running = [each for each in self._batcher.jobs if each.is_started]
            if self._waiting or running:
                self._make_room(job, running)
                job.relay.post(Queued(len(self._waiting) + 1, None))
            self._arrived.append(job)
            self._waiting.append(job)
            self._changed.notify_all()

    def counts(self) -> tuple[int, int]:
        """Return the numbers of waiting and of started jobs."""
        with self._changed:
            jobs = [*self._batcher.jobs, *self._arrived]
        started_count = sum(job.is_started for job in jobs)
        return len(jobs) - started_count, started_count

    def cancel(self, job: Job) -> None:
        """Remove a job from the queue, or stop it before its next step."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._post_positions()
            self._changed.notify_all()

    def position(self, job: Job) -> tuple[int, float | None] | None:
        """Return a waiting job's position, from 1, and its estimated wait in seconds, if known."""
        with self._changed:
            self._drop_started()
            if job not in self._waiting:
                return None
            return self._waiting.index(job) + 1, job.estimated_wait_s

    def drain(self) -> None:
        """Refuse new jobs and end waiting ones; running ones continue."""
        with self._changed:
            self._refusal = self._refusal or StoppingError
            for job in self._waiting:
                if not job.is_started:
                    job.cancel()
                    job.relay.close(StoppingError())
            self._changed.notify_all()

    def lose(self, reason: str) -> None:
        """Declare the device lost and end all jobs; safe to call while its own thread hangs."""
        with self._changed:
            self._refusal = DeviceLostError
            self._is_stopping = self._has_ended = True
            self._changed.notify_all()
        _log.critical("device_lost", reason=reason)
        for job in [*self._batcher.jobs, *self._arrived]:
            job.relay.close(DeviceLostError())

    def stop(self) -> None:
        """Cancel all jobs and end the thread; wait for it for `_PATIENCE_S` seconds at most."""
        self.drain()
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_ended, _PATIENCE_S)

    def _work(self) -> None:
        try:
            with torch.no_grad(), hardware.current(self._device):
                while self._take_in():
                    self._batcher.step()
                    self._look_ahead()
                self._batcher.stop()
        except BaseException as fault:
            self._batcher.report_fault(fault)
            self.lose("an error on its thread")
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def _take_in(self) -> bool:
        """Wait for jobs and hand them to the batcher; false when the worker is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._arrived or self._batcher.jobs)
            if not self._batcher.jobs:
                self._await_company()
            for job in self._arrived:
                self._batcher.add(job)
            self._arrived.clear()
            return not self._is_stopping

    def _await_company(self) -> None:
        """Wait briefly for jobs that arrive together with the first one.

        A job that misses the first forward would have to wait for its end.
        """
        expectation = self._batcher.expect()
        wait_for = self._changed.wait_for
        wait_for(
            lambda: self._is_stopping or len(self._arrived) >= expectation.job_count,
            expectation.patience_s,
        )
        while not self._is_stopping:
            has_more = functools.partial(self._has_more_than, len(self._arrived))
            if not wait_for(has_more, expectation.pause_s):
                break

    def _has_more_than(self, count: int) -> bool:
        return self._is_stopping or len(self._arrived) > count

    def _look_ahead(self) -> None:
        """Update the queue and the estimates, if jobs have changed or the estimates are old."""
        jobs = self._batcher.jobs
        seen = {(job, job.is_started) for job in jobs}
        now = time.monotonic()
        if seen == self._seen and now < self._looked_at + _LOOK_EVERY_S:
            return
        self._seen, self._looked_at = seen, now
        self._batcher.look_ahead()
        with self._changed:
            before = self._waiting
            self._waiting = [
                job for job in [*jobs, *self._arrived] if not (job.is_started or job.is_cancelled)
            ]
            if len({job.tenant.name for job in jobs}) > 1:  # they take turns
                self._waiting.sort(key=_expected_start)
            if self._waiting != before:
                self._post_positions()

    def _make_room(self, job: Job, running: Sequence[Job]) -> None:
        """End the waiting jobs that leave the queue for a new one."""
        job.work_s = find_seconds_alone(job)
        waiting = sorted(self._waiting, key=lambda each: each.arrived_at)
        leaving = self._bounds.admit(job, waiting, running)
        for each in leaving:
            each.cancel()
            each.relay.close(self._bounds.explain(each))
            self._waiting.remove(each)
        if leaving:
            self._post_positions()

    def _drop_started(self) -> None:
        """Remove jobs from the queue that have been started since the last look ahead."""
        self._waiting = [job for job in self._waiting if not job.is_started]

    def _post_positions(self) -> None:
        for index, job in enumerate(self._waiting):
            job.relay.post(Queued(index + 1, job.estimated_wait_s))


def _expected_start(job: Job) -> float:
    starts_at = job.images[0].starts_at
    return math.inf if starts_at is None else starts_at
