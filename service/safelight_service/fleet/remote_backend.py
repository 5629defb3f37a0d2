"""RemoteBackend: the backend of a front, whose engines run on other hosts.

A run whose host is lost starts again on another one. Its watchers see no second `accepted` and no
image twice.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

from safelight_service.core.backend import BackendStats, ModelChangedError
from safelight_service.core.errors import (
    ModelNotFoundError,
    NoEngineError,
    StoppingError,
)
from safelight_service.core.events import Completed, EventCallback
from safelight_service.core.model import ModelInfo, ModelState
from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.attempts import Patience, call_hosts
from safelight_service.fleet.frames import Offer
from safelight_service.fleet.heartbeat import Heartbeat
from safelight_service.fleet.pool import HostLostError, NoHostError, Pool
from safelight_service.fleet.remote_run import RemotePrepared, RemoteRun


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
        self._runs: dict[Timeline, asyncio.Task[Completed]] = {}
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
                task.cancel()

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
        heartbeat = self._heartbeat(request.model or self._default_model, timeline, on_event)
        frames = call_hosts(
            functools.partial(pool.prepare, portable), deadline_at, timeline, self._patience
        )
        async with aclosing(frames):
            async for frame in frames:
                heartbeat.note(frame)
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
            offer.marking,
            pool=pool,
            deadline_at=deadline_at,
            tenant=request.tenant,
            cache_scope=request.cache_scope,
            run_key=request.run_key,
        )

    async def run(self, prepared: RemotePrepared, on_event: EventCallback) -> Completed:
        """Make the images on a host, and again on another one if it is lost.

        Raises:
            SafelightError: any that `core/errors.py` lists.
            ModelChangedError: no host serves the prepared revision of the model any more.
        """
        if self._is_draining:
            raise StoppingError
        run = RemoteRun(prepared, on_event)
        heartbeat = self._heartbeat(prepared.accepted.model, prepared.timeline, on_event)
        making = asyncio.create_task(self._make(run, prepared, heartbeat))
        self._runs[prepared.timeline] = making
        try:
            await asyncio.wait({making})
        except asyncio.CancelledError:
            making.cancel()
            await run.note_cancelled()  # may reach the host after the cancel
            raise
        finally:
            del self._runs[prepared.timeline]
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        if making.cancelled():  # by `drain`
            raise StoppingError
        return making.result()

    async def _make(
        self, run: RemoteRun, prepared: RemotePrepared, heartbeat: Heartbeat
    ) -> Completed:
        """Run on one host after another, and publish what they send."""
        frames = call_hosts(run.call, prepared.deadline_at, prepared.timeline, self._patience)
        try:
            async with aclosing(frames):
                async for frame in frames:
                    heartbeat.note(frame)
                    run.publish(frame)
                    if isinstance(frame.outcome, Completed):
                        return replace(
                            frame.outcome,
                            timings=prepared.timeline.end(),
                            restart_count=run.restart_count,
                        )
                    await run.note_watchers()
        except ModelChangedError:
            if run.is_accepted:
                raise NoEngineError from None
            raise
        raise NoEngineError

    def _heartbeat(self, model: str, timeline: Timeline, on_event: EventCallback) -> Heartbeat:
        return Heartbeat(model, timeline.began_at, on_event, self._patience.heartbeat_s)

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
        await asyncio.gather(*map(self._look_at, set(self._pools.values())))

    async def _look_at(self, pool: Pool) -> None:
        with suppress(HostLostError, NoHostError):
            self._infos |= {info.name: info for info in await pool.describe()}
            self._stats[pool] = await pool.stats()
