"""Device worker: the thread that does all heavy work of one device.

The device is lost when it refuses all work, when a call on it does not return, or when the thread
has died. Nothing in this process can mend that: all jobs end, and no more are taken.

Every forward, of text encoders and VAEs too, happens on this thread: grad mode and CUDA state
are local to a thread, and on a CPU each further thread would bring a team of OpenMP threads.
"""

import functools
import threading
import time

import structlog
import torch

from safelight_service.core.errors import DeviceLostError, QueueFullError, StoppingError
from safelight_service.core.events import Queued
from safelight_service.engine import hardware
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.compilation.compile_watch import CompileWatch
from safelight_service.engine.job import Job

_log = structlog.get_logger()

_RETRY_AFTER_S = 1.0
"""When to come back to a full queue, while nothing has been measured."""

_LOOK_EVERY_S = 0.5
"""How old estimates may become while no job comes, starts or ends."""

_PATIENCE_S = 5.0
"""What a call that is being made gets to return when the device stops; it may hang."""


class DeviceWorker:
    """A bounded queue of jobs, and the thread that runs them on one device."""

    def __init__(
        self,
        device: torch.device,
        queue_size: int,
        batcher: StepBatcher,
        compile_watch: CompileWatch | None = None,
    ) -> None:
        self._device = device
        self._queue_size = queue_size
        self._batcher = batcher
        self._compile_watch = compile_watch
        self._arrived: list[Job] = []
        self._waiting: list[Job] = []
        self._is_running = False
        self._seen: list[tuple[Job, bool]] = []
        self._looked_at = 0.0
        self._refusal: type[StoppingError | DeviceLostError] | None = None
        """What jobs are refused with; None while they are taken."""
        self._is_stopping = False
        self._has_ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name=f"safelight-{device}", daemon=True)
        self._thread.start()

    @property
    def is_lost(self) -> bool:
        """Whether it will do nothing any more."""
        return self._refusal is DeviceLostError

    @property
    def busy_s(self) -> float:
        """Seconds that the current call has taken since it began, or since torch last compiled."""
        began_at = self._batcher.busy_since
        if began_at is None:
            return 0.0
        if self._compile_watch is not None:
            return self._compile_watch.seconds_since(began_at)
        return time.monotonic() - began_at

    def submit(self, job: Job) -> None:
        """Queue a job; its relay is closed when it has ended.

        Raises:
            QueueFullError: as many jobs wait as may.
            StoppingError: the device takes no more jobs.
            DeviceLostError: the device is lost.
        """
        with self._changed:
            if self._refusal is not None:
                raise self._refusal
            self._drop_started()
            # Beside those that may wait, one more where none runs: it is about to be taken.
            if len(self._waiting) + self._is_running > self._queue_size:
                raise QueueFullError(self._queue_size, self._next_start_s())
            if self._waiting or self._is_running:
                job.relay.post(Queued(len(self._waiting) + 1, None))
            self._arrived.append(job)
            self._waiting.append(job)
            self._changed.notify_all()

    def counts(self) -> tuple[int, int]:
        """Return how many jobs wait, and how many have been started."""
        with self._changed:
            jobs = [*self._batcher.jobs, *self._arrived]
        started_count = sum(job.is_started for job in jobs)
        return len(jobs) - started_count, started_count

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or stop it before its next step."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._tell_positions()
            self._changed.notify_all()

    def position(self, job: Job) -> tuple[int, float | None] | None:
        """A waiting job's place, from 1, and its estimated wait in seconds."""
        with self._changed:
            self._drop_started()
            if job not in self._waiting:
                return None
            return self._waiting.index(job) + 1, job.estimated_wait_s

    def drain(self) -> None:
        """Take no more jobs, and end those that wait; those that run go on."""
        with self._changed:
            self._refusal = self._refusal or StoppingError
            for job in self._waiting:
                if not job.is_started:
                    job.cancel()
                    job.relay.close(StoppingError())
            self._changed.notify_all()

    def lose(self, reason: str) -> None:
        """Take the device for lost and end all jobs; from any thread, as its own may hang."""
        with self._changed:
            self._refusal = DeviceLostError
            self._is_stopping = self._has_ended = True
            self._changed.notify_all()
        _log.critical("device_lost", reason=reason)
        for job in [*self._batcher.jobs, *self._arrived]:
            job.relay.close(DeviceLostError())

    def stop(self) -> None:
        """Cancel all jobs and end the thread; returns when it has ended, or soon if it cannot."""
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
        """Wait until there is something to do; false when the device is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._arrived or self._batcher.jobs)
            if not self._batcher.jobs:
                self._gather()
            for job in self._arrived:
                self._batcher.add(job)
            self._arrived.clear()
            return not self._is_stopping

    def _gather(self) -> None:
        """Wait a little for jobs that come at the same time as the first one.

        Those that miss its first forward would have to wait for all of it.
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
        """Bring the queue and the estimates up to date, when something has changed."""
        jobs = self._batcher.jobs
        seen = [(job, job.is_started) for job in jobs]
        now = time.monotonic()
        if seen == self._seen and now < self._looked_at + _LOOK_EVERY_S:
            return
        self._seen, self._looked_at = seen, now
        self._batcher.look_ahead()
        with self._changed:
            before = self._waiting
            self._waiting = [job for job in jobs if not job.is_started] + self._arrived
            self._is_running = len(self._waiting) < len(jobs) + len(self._arrived)
            if self._waiting != before:
                self._tell_positions()

    def _drop_started(self) -> None:
        """Take those out of the queue that have been started since the last look ahead."""
        waiting = [job for job in self._waiting if not job.is_started]
        self._is_running = self._is_running or len(waiting) < len(self._waiting)
        self._waiting = waiting

    def _tell_positions(self) -> None:
        for index, job in enumerate(self._waiting):
            job.relay.post(Queued(index + 1, job.estimated_wait_s))

    def _next_start_s(self) -> float:
        """Seconds until the first waiting job will leave the queue."""
        waits = [job.estimated_wait_s for job in self._waiting[:1]]
        return (waits[0] if waits else None) or _RETRY_AFTER_S
