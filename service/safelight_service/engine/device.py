"""Device: one thread that runs jobs on the torch device, first come, first served.

Every heavy forward happens on this thread: grad mode and CUDA state are local to a
thread, and on a CPU each further thread would bring a team of OpenMP threads.
"""

import threading
from collections import deque
from collections.abc import Callable

import torch

from safelight_service.engine.job import Job, JobCancelledError
from safelight_service.engine.pace import Pace
from safelight_service.errors import OutOfMemoryError, QueueFullError, SafelightError, StoppingError

ReportFault = Callable[[BaseException], SafelightError]
"""Logs an unexpected exception and returns what the caller may know of it."""

_RETRY_AFTER_S = 1.0
"""When to come back to a full queue, while nothing has been measured."""


class Device:
    """A bounded queue of jobs, and the thread that runs them."""

    def __init__(self, queue_size: int, report_fault: ReportFault) -> None:
        self._queue_size = queue_size
        self._report_fault = report_fault
        self._pace = Pace()
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._is_stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="safelight-device", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job; its outbox is closed when it has ended.

        Raises:
            QueueFullError: as many jobs wait as may.
            StoppingError: the device takes no more jobs.
        """
        with self._changed:
            if self._is_stopping:
                raise StoppingError
            # Beside those that may wait, one more: it runs, or is about to be taken.
            pending = len(self._waiting) + (self._running is not None)
            if pending > self._queue_size:
                raise QueueFullError(self._queue_size, self._remaining_s() or _RETRY_AFTER_S)
            self._waiting.append(job)
            if pending:
                job.tell_position(*self._position(len(self._waiting) - 1))
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """Take a job out of the queue, or stop it before its next step."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._tell_positions()

    def position(self, job: Job) -> tuple[int, float | None] | None:
        """A waiting job's place, from 1, and its estimated wait in seconds."""
        with self._changed:
            return self._position(self._waiting.index(job)) if job in self._waiting else None

    def stop(self) -> None:
        """Cancel all jobs and end the thread; returns when it has ended."""
        with self._changed:
            self._is_stopping = True
            for job in self._waiting:
                job.outbox.close(StoppingError())
            self._waiting.clear()
            if self._running is not None:
                self._running.cancel()
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while (job := self._take()) is not None:
            self._run(job)
            with self._changed:
                self._running = None

    def _take(self) -> Job | None:
        """Wait for the next job; None when the device is stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping or self._waiting)
            if self._is_stopping:
                return None
            self._running = self._waiting.popleft()
            self._tell_positions()
            return self._running

    def _run(self, job: Job) -> None:
        try:
            job.run()
        except JobCancelledError:
            job.outbox.close(StoppingError())  # heard only if it was the device that cancelled
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            job.outbox.close(OutOfMemoryError())
        except Exception as fault:
            job.outbox.close(self._report_fault(fault))
        else:
            self._pace.note(job.model.name, job.request, job.elapsed_s)
            job.outbox.close(job.timings)

    def _tell_positions(self) -> None:
        for index, job in enumerate(self._waiting):
            job.tell_position(*self._position(index))

    def _position(self, index: int) -> tuple[int, float | None]:
        return index + 1, self._remaining_s(index)

    def _remaining_s(self, waiting_count: int | None = None) -> float | None:
        """Seconds until the running job and the first waiting ones are done."""
        jobs = list(self._waiting)[:waiting_count]
        if self._running is not None:
            jobs.append(self._running)
        total = 0.0
        for job in jobs:
            estimate = self._pace.estimate_s(job.model.name, job.request)
            if estimate is None:
                return None
            total += max(0.0, estimate - job.elapsed_s)
        return total
