"""Engine: the local backend; runs generations on this host's devices and reports events.

Requests and events are frozen dataclasses, so the engine does not depend on a server. Call its
methods on one event loop; torch runs in threads.
"""

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import torch

from safelight_service.core.backend import BackendStats, Prepared
from safelight_service.core.errors import (
    DeviceLostError,
    QueueFullError,
    StoppingError,
    report_fault,
)
from safelight_service.core.events import Accepted, Completed, EventCallback, Queued, Restarted
from safelight_service.core.model import ModelInfo
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.core.validation import resolve
from safelight_service.engine.batching.estimates.batch_profile import ProfileStore
from safelight_service.engine.batching.policy import POLICIES
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.compilation.compile_watch import CompileWatch
from safelight_service.engine.device_worker import DeviceWorker
from safelight_service.engine.device_workers import DeviceWorkers
from safelight_service.engine.event_relay import LoopEventRelay
from safelight_service.engine.hardware import measure_memory, memory_for_weights, synchronize
from safelight_service.engine.job import Job
from safelight_service.engine.lora.lora import NO_ADAPTERS, Lora, Mixture
from safelight_service.engine.lora.reading import read_lora
from safelight_service.engine.models.acceleration import keep_compiled
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model, silence_libraries
from safelight_service.engine.models.registry import ModelRegistry
from safelight_service.engine.models.reuse_curves import CURVES_FILE, ReuseCurves
from safelight_service.engine.queue_bounds import QueueBounds
from safelight_service.engine.recovery.run_logs import RunLog, make_run_logs
from safelight_service.provenance.marker import Marker
from safelight_service.settings import AdapterSettings, Settings

_ENCODER_THREADS = min(8, max(2, (os.cpu_count() or 1) // 4))
"""Encoding a PNG of 1024 x 1024 takes 0.2 s, in which a GPU makes half an image."""
_WATCH_EVERY_S = 0.5


@dataclass(frozen=True)
class LocalPrepared(Prepared):
    """A prepared request and the loaded model for it."""

    model: LoadedModel = field(kw_only=True)
    mixture: Mixture = field(default=NO_ADAPTERS, kw_only=True)
    deadline_at: float | None = field(default=None, kw_only=True)
    """The deadline by this host's time.monotonic."""
    tenant: Tenant = field(default=NO_TENANT, kw_only=True)
    cache_scope: str = field(default="", kw_only=True)
    run_key: str = field(default="", kw_only=True)


class Engine:
    """Models, the workers of their devices, and the generations in progress."""

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
        self._max_linger_s = settings.generations.max_linger_s
        batching = settings.batching
        digests = FileDigests(_beside(batching.profiles_file, "digests.json"))
        self._registry = ModelRegistry(
            settings.models,
            settings.default_model,
            functools.partial(_find_budget, settings.model_memory_gib),
            functools.partial(
                load_model,
                batching=batching,
                profiles=ProfileStore(batching.profiles_file),
                note_compilation=observer.note_compilation,
                digests=digests,
                reuse_curves=ReuseCurves(_beside(batching.profiles_file, CURVES_FILE)),
            ),
            functools.partial(_read_lora, digests),
            self._warm_up,
            observer,
        )

        def make_worker(device: torch.device) -> DeviceWorker:
            batcher = StepBatcher(POLICIES[batching.order], report_fault, observer.note_forward)
            bounds = QueueBounds(settings.queue_size, settings.queue_s)
            return DeviceWorker(device, bounds, batcher, self._compile_watch)

        self._workers = DeviceWorkers(make_worker)
        self._encoders = ThreadPoolExecutor(
            _ENCODER_THREADS, thread_name_prefix="safelight-encoder"
        )
        self._logs = make_run_logs(settings)
        self._marker = Marker(settings.provenance)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the watchdog, and load the models that are configured to be preloaded.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """
        self._watching = asyncio.create_task(self._watch())
        await self._registry.preload()

    @property
    def is_lost(self) -> bool:
        """Whether a device, and so the engine, is lost; only a new process helps."""
        return self._workers.is_lost

    async def wait_until_lost(self) -> None:
        """Wait until a device is lost; all generations have ended with DeviceLostError then."""
        assert self._watching is not None
        await asyncio.shield(self._watching)

    def drain(self) -> None:
        """Refuse new work and end waiting generations; running ones continue."""
        self._registry.close()
        self._workers.drain()

    async def close(self) -> None:
        """Cancel running generations and end the engine's threads; skip those of a lost device."""
        self.drain()
        await asyncio.to_thread(self._workers.stop)
        self._encoders.shutdown(wait=not self.is_lost, cancel_futures=True)
        if self._logs is not None:
            await asyncio.to_thread(self._logs.close)
        if self._watching is not None:
            self._watching.cancel()
        if self._compile_watch is not None:
            self._compile_watch.close()

    @property
    def default_model(self) -> str:
        """Name of the model for requests that name none."""
        return self._registry.default

    def stats(self) -> BackendStats:
        """Return the present load; safe to call from any thread."""
        waiting, running = self._workers.counts()
        return BackendStats(
            waiting,
            running,
            self._registry.resident_bytes(),
            measure_memory(),
            self._workers.device_time_s(),
            self._workers.busy_s(),
        )

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first."""
        return self._registry.list()

    def get_model(self, name: str) -> ModelInfo:
        """Describe a model; an empty name stands for the default one.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        return self._registry.describe(name)

    def find_loaded(self, name: str = "") -> LoadedModel | None:
        """Return a model if it is loaded, else None; an empty name stands for the default one.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        return self._registry.find(name).loaded

    @contextlib.asynccontextmanager
    async def prepare(
        self, request: GenerationRequest, on_event: EventCallback, timeline: Timeline
    ) -> AsyncIterator[LocalPrepared]:
        """Load the model and resolve the request; the model stays loaded within the context.

        Calls `on_event` with the progress of loading, and records moments in the timeline.

        Raises:
            SafelightError: any that `core/errors.py` lists.
        """
        model = self._registry.find(request.model)
        with model.hold():
            timeline.model = model.settings.name
            async for loading in model.wait_until_loaded(may_wait=request.waits_for_model):
                timeline.loading_at = timeline.loading_at or time.monotonic()
                on_event(loading)
            loaded = model.loaded
            assert loaded is not None
            timeline.loaded_at = time.monotonic()
            resolved = resolve(
                request, loaded.capabilities, loaded.adapter.count_tokens, self._max_linger_s
            )
            accepted = Accepted(request.generation_id, loaded.name, loaded.revision, resolved)
            async with model.mix(resolved.adapters, on_event) as mixture:
                deadline_at = request.deadline_at
                left_s = None if deadline_at is None else deadline_at - time.monotonic()
                yield LocalPrepared(
                    accepted,
                    _identify(loaded, mixture),
                    timeline,
                    left_s,
                    self._marker.identity,
                    model=loaded,
                    mixture=mixture,
                    deadline_at=deadline_at,
                    tenant=request.tenant,
                    cache_scope=request.cache_scope,
                    run_key=request.run_key,
                )

    async def run(self, prepared: LocalPrepared, on_event: EventCallback) -> Completed:
        """Make the images and call `on_event` with each event; cancel the task to cancel them.

        Raises:
            SafelightError: any that `core/errors.py` lists.
        """
        log = await self._open_log(prepared)
        if log is None:
            return await self._run(prepared, on_event, None)
        is_over = True
        try:
            return await self._run(prepared, on_event, log)
        except (asyncio.CancelledError, StoppingError, DeviceLostError, QueueFullError):
            is_over = False  # it may be called again, perhaps on another engine
            raise
        finally:
            log.end(is_over=is_over)
            if not is_over:
                log.remove_when_cancelled(prepared.timeline)

    async def _open_log(self, prepared: LocalPrepared) -> RunLog | None:
        if self._logs is None or not prepared.run_key:
            return None
        return await self._logs.open(prepared, prepared.run_key, prepared.cache_scope)

    async def _run(
        self, prepared: LocalPrepared, on_event: EventCallback, log: RunLog | None
    ) -> Completed:
        relay = LoopEventRelay(on_event)
        job = Job(
            prepared.model,
            prepared.accepted.request,
            relay,
            self._encoders,
            prepared.deadline_at,
            prepared.timeline,
            prepared.tenant,
            prepared.cache_scope,
            log,
            prepared.mixture,
            self._marker,
        )
        worker = self._workers[prepared.model.adapter.execution_device]
        worker.submit(job)
        try:
            on_event(prepared.accepted)
            if log is not None and log.step_count:
                on_event(Restarted(1, log.step_count))
            await self._wait(job, worker, relay.ended, on_event)
        finally:
            worker.cancel(job)
            relay.ended.cancel()
        return _completed(job)

    async def _watch(self) -> None:
        """Watch for hanging devices; return when a device is lost."""
        while not self.is_lost:
            await asyncio.sleep(_WATCH_EVERY_S)
            self._workers.give_up_hanging(self._step_timeout_s)
        self._workers.give_up()

    async def _warm_up(self, model: LoadedModel) -> None:
        """Make an image in one step, so that no request pays for the first one's compilation."""
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
        on_event: EventCallback,
    ) -> None:
        """Wait until a job has ended; while it is queued, repeat its position as a heartbeat."""
        while not (await asyncio.wait([ended], timeout=self._heartbeat_s))[0]:
            position = worker.position(job)
            if position is not None:
                on_event(Queued(*position))
        error = ended.result()
        if error is not None:
            raise error


def _identify(model: LoadedModel, mixture: Mixture) -> str:
    """Return a text that is equal for a model and adapters whose images have the same bytes."""
    digests = [lora.digest for lora, _ in mixture.parts]
    return "\n".join([model.identity, *digests])


def _beside(file: Path | None, name: str) -> Path | None:
    """Return the path of another file in the folder of a file, if there is one."""
    return None if file is None else file.with_name(name)


def _read_lora(digests: FileDigests, settings: AdapterSettings, model: LoadedModel) -> Lora:
    """Read an adapter of a model, and wait until its device has it."""
    device = model.adapter.execution_device
    lora = read_lora(settings, model.folder, model.adapter.pipeline, device, digests)
    synchronize(device)
    return lora


def _find_budget(model_memory_gib: float | None, device: torch.device) -> float:
    """Return the bytes available for weights on a device."""
    if model_memory_gib is None:
        return memory_for_weights(device)
    return model_memory_gib * 2**30


def _completed(job: Job) -> Completed:
    return Completed(
        job.timeline.end(),
        sum(image.step_count for image in job.images),
        dict(sorted(job.widths.items())),
        usage=job.timeline.usage,
        reused_forward_count=sum(image.reuse.forward_count for image in job.images),
        restart_count=int(job.log is not None and job.log.step_count > 0),
    )
