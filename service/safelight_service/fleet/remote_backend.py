"""RemoteBackend: the backend of a front, whose engines run on other hosts.

A run whose host is lost starts again on another one. Its watchers see no second `accepted` and no
image twice.
"""

import asyncio
import functools
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace

import structlog

from safelight_service.core.backend import BackendStats, Prepared
from safelight_service.core.errors import (
    DeadlineError,
    DeviceLostError,
    ModelNotFoundError,
    NoEngineError,
    SafelightError,
    StoppingError,
)
from safelight_service.core.events import Completed, EventCallback, Image
from safelight_service.core.model import ModelInfo, ModelState
from safelight_service.core.request import GenerationRequest
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.frames import Frame, IdentityChanged, Offer, RunOrder
from safelight_service.fleet.pool import HostLostError, NoHostError, Pool

_log = structlog.get_logger()

_ELSEWHERE = (IdentityChanged, StoppingError, DeviceLostError)
"""Outcomes that another host may not have."""

_DRAINED = "drained"
"""Message of the cancellation of a run that waits when the front drains."""


@dataclass(frozen=True)
class RemotePrepared(Prepared):
    """A prepared request and the pool for it."""

    pool: Pool = field(kw_only=True)
    deadline_at: float | None = field(default=None, kw_only=True)
    """The deadline by this host's time.monotonic."""
    tenant: Tenant = field(default=NO_TENANT, kw_only=True)
    cache_scope: str = field(default="", kw_only=True)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a front waits for its engine hosts, in seconds."""

    silence_s: float = 5.0
    """A stream without a frame for so long is lost; hosts send a sign of life each second."""
    attempts: int = 5
    """Hosts that a call tries."""
    pause_s: float = 0.1
    """Pause before the second attempt; doubles with each further one."""
    describe_every_s: float = 2.0
    """Interval between two looks at the models."""


class RemoteBackend:
    """Runs generations on pools of engine hosts."""

    is_lost = False
    """A front outlives its hosts."""

    def __init__(self, pools: Mapping[str, Pool], default_model: str, patience: Patience) -> None:
        """`pools` holds the pool of each model, by the model's name."""
        self._pools = pools
        self._default_model = default_model
        self._patience = patience
        self._infos: dict[str, ModelInfo] = {}
        self._stats: dict[Pool, tuple[BackendStats, ...]] = {}
        self._runs: dict[Timeline, asyncio.Task[object]] = {}
        """Tasks of the runs in progress, by their timelines."""
        self._is_draining = False
        self._looking: asyncio.Task[None] | None = None

    @property
    def default_model(self) -> str:
        """Name of the model for requests that name none."""
        return self._default_model

    async def start(self) -> None:
        """Look at the models of all pools once, and again from time to time."""
        await self._look()
        self._looking = asyncio.create_task(self._keep_looking())

    async def wait_until_lost(self) -> None:
        """Wait for ever: a lost host is replaced."""
        await asyncio.Event().wait()

    def drain(self) -> None:
        """Refuse new work and end waiting generations; running ones continue."""
        self._is_draining = True
        for timeline, task in self._runs.items():
            if timeline.started_at is None:
                task.cancel(_DRAINED)

    async def close(self) -> None:
        """Stop looking, and release the pools."""
        self._is_draining = True
        if self._looking is not None:
            self._looking.cancel()
        for pool in set(self._pools.values()):
            await pool.close()

    def stats(self) -> BackendStats:
        """Return the load of this front's generations, and the models of all hosts."""
        timelines = tuple(self._runs)
        started = sum(timeline.started_at is not None for timeline in timelines)
        resident: dict[str, int] = {}
        for stats in tuple(self._stats.values()):
            for each in stats:
                for name, size in each.resident_bytes.items():
                    resident[name] = resident.get(name, 0) + size
        return BackendStats(len(timelines) - started, started, resident)

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first."""
        names = sorted(self._pools, key=lambda name: (name != self._default_model, name))
        return tuple(self._describe(name) for name in names)

    def get_model(self, name: str) -> ModelInfo:
        """Describe a model; an empty name stands for the default one.

        Raises:
            ModelNotFoundError: no pool serves the model.
        """
        self._find_pool(name)
        return self._describe(name or self._default_model)

    @asynccontextmanager
    async def prepare(
        self, request: GenerationRequest, on_event: EventCallback, timeline: Timeline
    ) -> AsyncIterator[RemotePrepared]:
        """Resolve the request on a host of the model's pool.

        Raises:
            SafelightError: any that `core/errors.py` lists.
        """
        pool = self._find_pool(request.model)
        deadline_at = request.deadline_at
        portable = replace(request, deadline_at=None)
        offer = None
        frames = self._attempt(functools.partial(pool.prepare, portable), deadline_at, timeline)
        async with aclosing(frames):
            async for frame in frames:
                for event in frame.events:
                    on_event(event)
                if isinstance(frame.outcome, Offer):
                    offer = frame.outcome
        if offer is None:
            raise NoEngineError
        timeline.loaded_at = time.monotonic()
        yield RemotePrepared(
            offer.accepted,
            offer.model_identity,
            timeline,
            None if deadline_at is None else deadline_at - time.monotonic(),
            pool=pool,
            deadline_at=deadline_at,
            tenant=request.tenant,
            cache_scope=request.cache_scope,
        )

    async def run(self, prepared: RemotePrepared, on_event: EventCallback) -> Completed:
        """Make the images on a host, and again on another one if it is lost.

        Raises:
            SafelightError: any that `core/errors.py` lists.
        """
        if self._is_draining:
            raise StoppingError
        run = _RemoteRun(prepared, on_event)
        on_event(prepared.accepted)
        task = asyncio.current_task()
        assert task is not None
        self._runs[prepared.timeline] = task
        try:
            frames = self._attempt(run.call, prepared.deadline_at, prepared.timeline)
            async with aclosing(frames):
                async for frame in frames:
                    run.publish(frame)
                    if isinstance(frame.outcome, Completed):
                        return replace(frame.outcome, timings=prepared.timeline.end())
                    await run.note_watchers()
        except asyncio.CancelledError as cancelled:
            if cancelled.args != (_DRAINED,):
                raise
            task.uncancel()
            raise StoppingError from None
        finally:
            del self._runs[prepared.timeline]
        raise NoEngineError

    async def _attempt(
        self,
        call: Callable[[float | None, frozenset[str]], AsyncGenerator[Frame, None]],
        deadline_at: float | None,
        timeline: Timeline,
    ) -> AsyncGenerator[Frame, None]:
        """Yield the frames of a call; call another host where one is lost.

        Raises:
            SafelightError: the outcome of the call.
            NoEngineError: no host has answered.
        """
        excluded: set[str] = set()
        for attempt in range(self._patience.attempts):
            if attempt:
                await asyncio.sleep(self._patience.pause_s * 2 ** (attempt - 1))
            left_s = None if deadline_at is None else deadline_at - time.monotonic()
            if left_s is not None and left_s <= 0:
                raise DeadlineError(0.0, 0.0)
            host = ""
            try:
                async with aclosing(call(left_s, frozenset(excluded))) as frames:
                    while (frame := await self._next(frames)) is not None:
                        host = frame.host
                        if frame.moments is not None:
                            frame.moments.write_to(timeline)
                        if isinstance(frame.outcome, _ELSEWHERE):
                            raise HostLostError
                        if isinstance(frame.outcome, SafelightError):
                            raise frame.outcome
                        yield frame
                        if frame.outcome is not None:
                            return
                raise HostLostError
            except NoHostError:
                excluded.clear()  # better a host that has just failed than none
            except HostLostError:
                excluded.add(host)
                _log.warning("engine_host_lost", host=host, attempt=attempt + 1)
        raise NoEngineError

    async def _next(self, frames: AsyncGenerator[Frame, None]) -> Frame | None:
        """Return the next frame, or None at the end.

        Raises:
            HostLostError: the host has been silent for too long.
        """
        try:
            async with asyncio.timeout(self._patience.silence_s):
                return await anext(frames, None)
        except TimeoutError:
            raise HostLostError from None

    def _find_pool(self, name: str) -> Pool:
        pool = self._pools.get(name or self._default_model)
        if pool is None:
            raise ModelNotFoundError(name, sorted(self._pools))
        return pool

    def _describe(self, name: str) -> ModelInfo:
        """Return what a host last said about a model, with the default of this front."""
        known = self._infos.get(name) or ModelInfo(name, "", False, ModelState.NOT_LOADED, None)
        return replace(known, is_default=name == self._default_model)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._patience.describe_every_s)
            await self._look()

    async def _look(self) -> None:
        for pool in set(self._pools.values()):
            with suppress(HostLostError, NoHostError):
                self._infos |= {info.name: info for info in await pool.describe()}
                self._stats[pool] = await pool.stats()


class _RemoteRun:
    """One run: the order for its hosts, and what its watchers have received."""

    def __init__(self, prepared: RemotePrepared, on_event: EventCallback) -> None:
        self._id = uuid.uuid4().hex
        self._prepared = prepared
        self._on_event = on_event
        self._sent: set[int] = set()
        """Indices of the images that the watchers have."""
        self._noted = self._watchers

    @property
    def _watchers(self) -> tuple[bool, bool]:
        """Whether the run is abandoned, and whether further watchers have joined."""
        timeline = self._prepared.timeline
        return timeline.abandoned_at is not None, timeline.joined_at is not None

    def call(self, left_s: float | None, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Run on a host that is not excluded."""
        self._noted = self._watchers
        order = RunOrder(
            self._id,
            self._prepared.accepted,
            self._prepared.model_identity,
            left_s,
            self._prepared.tenant,
            self._prepared.cache_scope,
            self._prepared.timeline.token,
            *self._noted,
        )
        return self._prepared.pool.run(order, excluded)

    def publish(self, frame: Frame) -> None:
        """Publish the events of a frame, but no image twice."""
        for event in frame.events:
            if isinstance(event, Image):
                if event.index in self._sent:
                    continue
                self._sent.add(event.index)
            self._on_event(event)

    async def note_watchers(self) -> None:
        """Note at the hosts whether the run is still watched, if that has changed."""
        if self._watchers != self._noted:
            self._noted = self._watchers
            is_abandoned, is_joined = self._noted
            await self._prepared.pool.note(self._id, is_abandoned=is_abandoned, is_joined=is_joined)
