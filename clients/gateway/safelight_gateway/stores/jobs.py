"""Jobs: requests that run in the background while clients poll for the result."""

import asyncio
import logging
import time
import uuid
from collections import Counter
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from enum import Enum

from safelight import Progress, Queued

from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.generator import Generator
from safelight_gateway.generation.request import ImageRequest, ImageResult
from safelight_gateway.settings import JobSettings

_log = logging.getLogger("safelight_gateway")


class JobState(Enum):
    """Progress of a job."""

    QUEUED = "queued"
    """Waiting for other generations or for the model."""
    RUNNING = "running"
    """Denoising: at least one step is done."""
    SUCCEEDED = "succeeded"
    """Done; `result` is set."""
    FAILED = "failed"
    """Failed; `error` is set."""
    CANCELLED = "cancelled"
    """Cancelled; `error` is set."""


@dataclass(slots=True, eq=False)
class Job:
    """A request that runs in the background.

    Attributes:
        id: Unguessable id.
        request: The request.
        holder: Token or address that it counts for.
        created_at: Unix time in seconds, as are `started_at` and `ended_at`.
        ended_s: End on the monotonic clock, in seconds; the age of a job counts from it.
        queue_position: Number of generations ahead.
        links: URLs of the images; empty until a client asks for them.
    """

    id: str
    request: ImageRequest
    holder: str
    created_at: float
    state: JobState = JobState.QUEUED
    started_at: float | None = None
    ended_at: float | None = None
    ended_s: float | None = None
    queue_position: int = 0
    result: ImageResult | None = None
    error: GatewayError | None = None
    links: tuple[str, ...] = ()
    _task: asyncio.Task[None] | None = field(default=None, repr=False)
    _begun: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    _ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def size_bytes(self) -> int:
        """Size of the images, in bytes."""
        return sum(len(image.data) for image in self.result.images) if self.result else 0

    @property
    def has_ended(self) -> bool:
        """Whether the job has succeeded, failed or been cancelled."""
        return self._ended.is_set()

    async def wait_until_begun(self) -> None:
        """Wait until the service has accepted or refused the request.

        Raises:
            GatewayError: the service refused the request.
        """
        await self._begun.wait()
        self.raise_for_failure()

    async def wait_until_ended(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; return whether the job ended in time."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), timeout_s)
        return self.has_ended

    def raise_for_failure(self) -> None:
        """Raise the error of the job, if any.

        Raises:
            GatewayError: the job failed or was cancelled.
        """
        if self.error is not None:
            raise self.error

    def cancel(self) -> None:
        """Cancel the job, unless it has ended."""
        if self._task is not None:
            self._task.cancel()

    def start(self, generator: Generator) -> None:
        """Run the request in a new task."""
        self._task = asyncio.create_task(self._work(generator), name=f"job {self.id}")
        self._task.add_done_callback(self._take_end)

    async def _work(self, generator: Generator) -> None:
        """Run the request; record the outcome instead of raising it."""
        try:
            run = generator.start(self.request)
            async with aclosing(run.events()) as events:
                async for event in events:
                    match event:
                        case Queued():
                            self.queue_position = event.position
                        case Progress() if self.started_at is None:
                            self.state = JobState.RUNNING
                            self.started_at = time.time()
                            self.queue_position = 0
                    self._begun.set()
            self.result = run.result
            self.state = JobState.SUCCEEDED
        except GatewayError as error:
            self.error, self.state = error, JobState.FAILED
        except asyncio.CancelledError:
            self._take_cancellation()
        except Exception:
            self.error = GatewayError(500, "internal gateway error", "INTERNAL")
            self.state = JobState.FAILED
            _log.exception("internal error in request %s", self.id)
        finally:
            self._end()

    def _take_end(self, task: asyncio.Task[None]) -> None:
        """End a job whose task was cancelled before it ran."""
        if not self.has_ended:
            self._take_cancellation()
            self._end()

    def _take_cancellation(self) -> None:
        self.error = GatewayError(409, "the request was cancelled", "CANCELLED")
        self.state = JobState.CANCELLED

    def _end(self) -> None:
        self.ended_at, self.ended_s = time.time(), time.monotonic()
        self.started_at = self.started_at or self.ended_at
        self._begun.set()
        self._ended.set()


class JobStore:
    """Running and recently ended jobs; each is visible only to the token that started it.

    Beyond the limits, the holder with the most jobs, or with the largest results, loses its oldest
    result. So nobody's results go because of others that have more.
    """

    def __init__(self, generator: Generator, settings: JobSettings) -> None:
        self._generator = generator
        self._settings = settings
        self._jobs: dict[str, Job] = {}

    def start(self, request: ImageRequest, holder: str) -> Job:
        """Start a job that counts for a holder, which the service has accepted.

        Raises:
            GatewayError: too many jobs are running.
        """
        self._forget_old()
        if not self._make_room(holder):
            raise GatewayError(
                429, "too many requests are pending; try again later", "QUEUE_FULL", (), 1.0
            )
        job = Job(str(uuid.uuid4()), request, holder, time.time())
        self._jobs[job.id] = job
        job.start(self._generator)
        return job

    def find(self, id_: str, credential: str | None) -> Job:
        """Return a job of the caller.

        Raises:
            GatewayError: the caller has no such job.
        """
        self._forget_old()
        job = self._jobs.get(id_)
        if job is None or job.request.context.credential != credential:
            raise GatewayError(
                404, f"request {id_!r} does not exist or has expired", "GENERATION_NOT_FOUND"
            )
        return job

    async def close(self) -> None:
        """Cancel all running jobs."""
        for job in self._jobs.values():
            job.cancel()
        for job in self._jobs.values():
            await job.wait_until_ended()

    def _forget_old(self) -> None:
        """Remove expired jobs, then results beyond the memory."""
        oldest_s = time.monotonic() - self._settings.keep_s
        ended = [job for job in self._jobs.values() if job.ended_s is not None]
        for job in ended:
            if (job.ended_s or 0.0) < oldest_s:
                del self._jobs[job.id]
        kept = sorted(
            (job for job in ended if job.id in self._jobs and job.result is not None),
            key=lambda job: job.ended_s or 0.0,
        )
        sizes: Counter[str] = Counter()
        for job in kept:
            sizes[job.holder] += job.size_bytes
        while sizes.total() > self._settings.keep_mib * 2**20 and len(kept) > 1:
            largest = max(sizes, key=sizes.__getitem__)
            job = next(job for job in kept if job.holder == largest)
            kept.remove(job)
            sizes[largest] -= job.size_bytes
            del self._jobs[job.id]

    def _make_room(self, holder: str) -> bool:
        """Make room for a job; return False if no holder with as many jobs has an ended one."""
        if len(self._jobs) < self._settings.max_count:
            return True
        counts = Counter(job.holder for job in self._jobs.values())
        ended = [job for job in self._jobs.values() if job.ended_s is not None]
        droppable = [job for job in ended if counts[job.holder] >= counts[holder]]
        if not droppable:
            return False
        # Of the holders with the most jobs, drop the result that ended first.
        oldest = min(droppable, key=lambda job: (-counts[job.holder], job.ended_s))
        del self._jobs[oldest.id]
        return True
