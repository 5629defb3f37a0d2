"""Engine: runs generations, and tells what happens to them as events.

It knows no gRPC: requests and events are frozen dataclasses, so the same engine
runs under any server. Its methods belong to one event loop; torch runs in threads.
"""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from safelight_service.core.backend import BackendStats, Prepared
from safelight_service.core.errors import QueueFullError, StoppingError, report_fault
from safelight_service.core.events import Accepted, Completed, EventCallback, Queued
from safelight_service.core.model import ModelInfo
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.core.validation import resolve
from safelight_service.engine.batching.batch_profile import ProfileStore
from safelight_service.engine.batching.policy import POLICIES
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.compilation.compile_watch import CompileWatch
from safelight_service.engine.device_worker import DeviceWorker
from safelight_service.engine.device_workers import DeviceWorkers
from safelight_service.engine.event_relay import LoopEventRelay
from safelight_service.engine.hardware import measure_memory, memory_for_weights
from safelight_service.engine.job import Job
from safelight_service.engine.models.acceleration import keep_compiled
from safelight_service.engine.models.loading import LoadedModel, load_model, silence_libraries
from safelight_service.engine.models.registry import ModelRegistry
from safelight_service.settings import Settings

_ENCODER_THREADS = min(8, max(2, (os.cpu_count() or 1) // 4))
"""A PNG of 1024 x 1024 takes a fifth of a second, in which a GPU makes half an image."""
_WATCH_EVERY_S = 0.5


@dataclass(frozen=True)
class LocalPrepared(Prepared):
    """A prepared request, and the loaded model that is to run it."""

    model: LoadedModel = field(kw_only=True)
    deadline_at: float | None = field(default=None, kw_only=True)
    """The deadline by this host's time.monotonic."""


class Engine:
    """The models, the devices that run them, and the generations in progress."""

    def __init__(self, settings: Settings, observer: Observer = NULL_OBSERVER) -> None:
        silence_libraries()
        if settings.torch_threads is not None:
            torch.set_num_threads(settings.torch_threads)
        self._compile_watch: CompileWatch | None = None
        if any(model.acceleration.compile != "off" for model in settings.models):
            keep_compiled(settings.compile_cache)
            self._compile_watch = CompileWatch()
        self._observer = observer
        self._heartbeat_s = settings.heartbeat_s
        self._step_timeout_s = settings.step_timeout_s
        batching = settings.batching
        self._registry = ModelRegistry(
            settings.models,
            settings.default_model,
            functools.partial(_find_budget, settings.model_memory_gib),
            functools.partial(
                load_model,
                batching=batching,
                profiles=ProfileStore(batching.profiles_file),
                note_compilation=observer.note_compilation,
            ),
            self._warm_up,
            observer,
        )

        def make_worker(device: torch.device) -> DeviceWorker:
            batcher = StepBatcher(POLICIES[batching.order], report_fault, observer.note_forward)
            return DeviceWorker(device, settings.queue_size, batcher, self._compile_watch)

        self._workers = DeviceWorkers(make_worker)
        self._encoders = ThreadPoolExecutor(
            _ENCODER_THREADS, thread_name_prefix="safelight-encoder"
        )
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the models that are to be there from the start.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """
        self._watching = asyncio.create_task(self._watch())
        await self._registry.preload()

    @property
    def is_lost(self) -> bool:
        """Whether a device is lost, and with it the engine: only a new process helps."""
        return self._workers.is_lost

    async def wait_until_lost(self) -> None:
        """Return when a device is lost; all generations have ended then, with DeviceLostError."""
        assert self._watching is not None
        await asyncio.shield(self._watching)

    def drain(self) -> None:
        """Take no new work and end what waits; generations that run go on."""
        self._registry.close()
        self._workers.drain()

    async def close(self) -> None:
        """Cancel what runs and end the engine's threads; those of a lost device are left alone."""
        self.drain()
        await asyncio.to_thread(self._workers.stop)
        self._encoders.shutdown(wait=not self.is_lost, cancel_futures=True)
        if self._watching is not None:
            self._watching.cancel()
        if self._compile_watch is not None:
            self._compile_watch.close()

    @property
    def default_model(self) -> str:
        """Name of the model of calls that name none."""
        return self._registry.default

    def stats(self) -> BackendStats:
        """Return how busy it is; from any thread."""
        waiting, running = self._workers.counts()
        return BackendStats(waiting, running, self._registry.resident_bytes(), measure_memory())

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first."""
        return self._registry.list()

    def get_model(self, name: str) -> ModelInfo:
        """Describe one model; an empty name is the default one.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        return self._registry.describe(name)

    @contextlib.asynccontextmanager
    async def prepare(
        self, request: GenerationRequest, tell: EventCallback, timeline: Timeline
    ) -> AsyncIterator[LocalPrepared]:
        """Load the model, which stays loaded within, and settle what is asked for.

        The moments of the generation are written into the timeline.

        Raises:
            SafelightError: as `errors.py` lists them.
        """
        model = self._registry.find(request.model)
        with model.hold():
            timeline.model = model.settings.name
            async for loading in model.wait_until_loaded(may_wait=request.waits_for_model):
                timeline.loading_at = timeline.loading_at or time.monotonic()
                tell(loading)
            loaded = model.loaded
            assert loaded is not None
            timeline.loaded_at = time.monotonic()
            resolved = resolve(request, loaded.capabilities, loaded.adapter.count_tokens)
            accepted = Accepted(request.generation_id, loaded.name, loaded.revision, resolved)
            deadline_at = request.deadline_at
            left_s = None if deadline_at is None else deadline_at - time.monotonic()
            yield LocalPrepared(
                accepted, loaded.identity, timeline, left_s, model=loaded, deadline_at=deadline_at
            )

    async def run(self, prepared: LocalPrepared, tell: EventCallback) -> Completed:
        """Make the images, telling what happens; to cancel this cancels the generation.

        Raises:
            SafelightError: as `errors.py` lists them.
        """
        relay = LoopEventRelay(tell)
        job = Job(
            prepared.model,
            prepared.accepted.request,
            relay,
            self._encoders,
            prepared.deadline_at,
            prepared.timeline,
        )
        worker = self._workers[prepared.model.adapter.execution_device]
        worker.submit(job)
        try:
            tell(prepared.accepted)
            await self._wait(job, worker, relay.ended, tell)
        finally:
            worker.cancel(job)
            relay.ended.cancel()
        return _completed(job)

    async def _watch(self) -> None:
        """Return when a device is lost, be it because a call on it does not return."""
        while not self.is_lost:
            await asyncio.sleep(_WATCH_EVERY_S)
            self._workers.give_up_hanging(self._step_timeout_s)
        self._workers.give_up()

    async def _warm_up(self, model: LoadedModel) -> None:
        """Make a picture of one step, so that no caller waits for what the first one costs."""
        request = GenerationRequest("a picture", Parameters(num_inference_steps=1, seed=0))
        resolved = resolve(request, model.capabilities, model.adapter.count_tokens)
        accepted = Accepted("", model.name, model.revision, resolved)
        with contextlib.suppress(QueueFullError, StoppingError):
            await self.run(
                LocalPrepared(accepted, model.identity, Timeline(model=model.name), model=model),
                lambda _: None,
            )

    async def _wait(
        self,
        job: Job,
        worker: DeviceWorker,
        ended: asyncio.Future[BaseException | None],
        tell: EventCallback,
    ) -> None:
        """Return when a job has ended; while it waits for the device, repeat its position."""
        while not (await asyncio.wait([ended], timeout=self._heartbeat_s))[0]:
            position = worker.position(job)
            if position is not None:
                tell(Queued(*position))
        error = ended.result()
        if error is not None:
            raise error


def _find_budget(model_memory_gib: float | None, device: torch.device) -> float:
    """Return the bytes that weights may take on a device."""
    if model_memory_gib is None:
        return memory_for_weights(device)
    return model_memory_gib * 2**30


def _completed(job: Job) -> Completed:
    return Completed(
        job.timeline.end(),
        sum(image.step_count for image in job.images),
        dict(sorted(job.widths.items())),
    )
