"""EngineHost: serves a local backend to the fronts of a fleet, as streams of frames.

Errors travel as outcomes: a transport wraps exceptions in its own.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

from safelight_service.core.backend import Backend, BackendStats
from safelight_service.core.errors import SafelightError, report_fault
from safelight_service.core.events import Event
from safelight_service.core.model import ModelInfo
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.frames import Frame, IdentityChanged, Moments, Offer, Outcome, RunOrder
from safelight_service.fleet.routing import Lane, Load, Loads, add, lane_of
from safelight_service.generations.subscription import Subscription

_ENDED_COUNT = 100


@dataclass(frozen=True, slots=True)
class Run:
    """A run in progress."""

    timeline: Timeline
    front: str
    lane: Lane
    image_count: int
    step_count: int
    """Steps of each image."""

    @property
    def is_abandoned(self) -> bool:
        """Whether no caller watches it."""
        return self.timeline.abandoned_at is not None

    @property
    def is_joined(self) -> bool:
        """Whether further callers depend on it."""
        return self.timeline.joined_at is not None

    @property
    def steps_left(self) -> float:
        """Steps that each image has left, on average."""
        made = sum(len(image.step_ends) for image in self.timeline.images)
        return self.step_count - made / self.image_count


class EngineHost:
    """One engine of a fleet. Call its methods on the event loop of its backend."""

    def __init__(
        self,
        backend: Backend,
        host_id: str,
        sign_of_life_s: float = 1.0,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """`sign_of_life_s` is the longest silence of a stream, in seconds."""
        self._backend = backend
        self._id = host_id
        self._observer = observer
        self._sign_of_life_s = sign_of_life_s
        self._runs: dict[str, Run] = {}
        """Runs in progress, by their ids."""
        self._ended: dict[str, Run] = {}
        """The latest runs that have ended, whose cancels may be noted yet."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """Runs in progress."""
        return tuple(self._runs.values())

    def describe(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first."""
        return self._backend.list_models()

    def stats(self) -> BackendStats:
        """Return the present load."""
        return self._backend.stats()

    def loads(self) -> Mapping[str, Loads]:
        """Return the load of the runs in progress, by their fronts."""
        loads: dict[str, dict[Lane, Load]] = {}
        for run in self._runs.values():
            add(loads.setdefault(run.front, {}), run.lane, run.image_count, run.steps_left)
        return loads

    def note(self, run_id: str, *, is_abandoned: bool, is_joined: bool) -> None:
        """Note the watchers of a run; ignores runs of other hosts."""
        run = self._runs.get(run_id)
        if run is None:
            return
        timeline, now = run.timeline, time.monotonic()
        timeline.abandoned_at = (timeline.abandoned_at or now) if is_abandoned else None
        timeline.joined_at = timeline.joined_at or (now if is_joined else None)

    def note_cancelled(self, run_id: str) -> None:
        """Note that a run, whose stream ends now, is not to be continued by another host."""
        run = self._runs.get(run_id) or self._ended.get(run_id)
        if run is not None:
            run.timeline.cancelled_at = time.monotonic()

    async def prepare(
        self, request: GenerationRequest, left_s: float | None
    ) -> AsyncGenerator[Frame, None]:
        """Load the model and resolve a request, whose deadline is in `left_s` seconds.

        Yields the progress of loading; the last frame holds an Offer or an error.
        """
        deadline_at = None if left_s is None else time.monotonic() + left_s
        request = replace(request, deadline_at=deadline_at)
        timeline = Timeline()

        async def resolve(post: Callable[[Event], None]) -> Outcome:
            async with self._backend.prepare(request, post, timeline) as prepared:
                return Offer(prepared.accepted, prepared.model_identity, prepared.marking)

        async with aclosing(self._stream(resolve, timeline)) as frames:
            async for frame in frames:
                yield frame

    async def run(self, order: RunOrder) -> AsyncGenerator[Frame, None]:
        """Make the images of an order; close the stream to cancel it.

        Yields the events; the last frame holds Completed, IdentityChanged or an error.
        """
        timeline = Timeline(token=order.token, traceparent=order.traceparent)
        timeline.abandoned_at = timeline.began_at if order.is_abandoned else None
        timeline.joined_at = timeline.began_at if order.is_joined else None

        async def make(post: Callable[[Event], None]) -> Outcome:
            async with self._backend.prepare(order.reopen(), post, timeline) as prepared:
                if prepared.model_identity != order.model_identity:
                    return IdentityChanged(prepared.model_identity)
                return await self._backend.run(prepared, post)

        request = order.accepted.request
        parameters = request.parameters
        lane = lane_of(order.accepted.model, parameters.width, parameters.height)
        self._runs[order.run_id] = Run(
            timeline, order.front, lane, request.image_count, parameters.num_inference_steps
        )
        self._observer.run_began(timeline)
        try:
            async with aclosing(self._stream(make, timeline)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._ended[order.run_id] = self._runs.pop(order.run_id)
            if len(self._ended) > _ENDED_COUNT:
                del self._ended[next(iter(self._ended))]
            self._observer.run_ended(timeline)

    async def _stream(
        self, work: Callable[[Callable[[Event], None]], Awaitable[Outcome]], timeline: Timeline
    ) -> AsyncGenerator[Frame, None]:
        """Run `work` in a task, and yield what it posts; events that nobody reads are conflated."""
        unread = Subscription()

        async def finish() -> Outcome:
            try:
                return await work(unread.post)
            except SafelightError as error:
                return error
            except Exception as fault:
                return report_fault(fault)
            finally:
                unread.close()

        task = asyncio.ensure_future(finish())
        try:
            phase = _phase_of(timeline)
            while (events := await self._read(unread)) is not None:
                moments = None
                if _phase_of(timeline) != phase:
                    phase, moments = _phase_of(timeline), Moments.of(timeline)
                yield Frame(self._id, events, moments)
            yield Frame(self._id, moments=Moments.of(timeline), outcome=await task)
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _read(self, unread: Subscription) -> tuple[Event, ...] | None:
        """Return what has been posted; empty as a sign of life, None at the end."""
        try:
            async with asyncio.timeout(self._sign_of_life_s):
                return await unread.get_all()
        except TimeoutError:
            return ()


def _phase_of(timeline: Timeline) -> tuple[bool, bool, bool]:
    """Return whether a run has begun to load, to wait and to make images."""
    moments = timeline.loading_at, timeline.queued_at, timeline.started_at
    return moments[0] is not None, moments[1] is not None, moments[2] is not None
