"""Job runs: jobs on a batcher in the test's own thread, with their events."""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image
import torch

from safelight_service.core.errors import InternalError
from safelight_service.core.events import Event, Image, Progress
from safelight_service.core.request import GenerationRequest, Parameters, PreviewOptions
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.core.validation import resolve
from safelight_service.engine import Engine
from safelight_service.engine.batching.policy import FIRST_COME, SchedulingPolicy
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.event_relay import PendingEvent
from safelight_service.engine.job import Job
from safelight_service.engine.lora.lora import NO_ADAPTERS, Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.recovery.run_logs import RunLog

SMALL: dict[str, Any] = {"width": 64, "height": 96, "num_inference_steps": 3, "seed": 7}
"""Parameters of an image that all families make quickly."""


class Recorder:
    """Event relay that keeps all events in order."""

    def __init__(self, on_event: Callable[[Event], None] | None = None) -> None:
        self.events: list[Event] = []
        self.is_closed = False
        self.error: BaseException | None = None
        self._on_event = on_event

    def post(self, event: PendingEvent) -> None:
        """Record an event, and wait for it if it is not ready; an error ends the recording."""
        if isinstance(event, Future):
            self.error = self.error or event.exception()
        if self.error is not None:
            return
        ready = event.result() if isinstance(event, Future) else event
        if ready is None:
            return
        self.events.append(ready)
        if self._on_event is not None:
            self._on_event(ready)

    def close(self, error: BaseException | None = None) -> None:
        """Record the end; fail on a second one."""
        assert not self.is_closed
        self.is_closed, self.error = True, self.error or error


class InlineExecutor(Executor):
    """Executor that runs functions at once, in the calling thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function; return a completed future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def make_job(
    model: LoadedModel,
    recorder: Recorder,
    *,
    inputs: str = "a red circle",
    image_count: int | None = None,
    preview_interval: int = 0,
    tenant: Tenant = NO_TENANT,
    deadline_s: float | None = None,
    mixture: Mixture = NO_ADAPTERS,
    log: RunLog | None = None,
    **parameters: Any,
) -> Job:
    """Make a job for a small request, resolved as by the engine; `deadline_s` counts from now."""
    request = GenerationRequest(
        inputs,
        Parameters(**{**SMALL, **parameters}),
        image_count=image_count,
        preview=PreviewOptions(interval_steps=preview_interval),
    )
    resolved = resolve(request, model.capabilities, model.adapter.count_tokens)
    deadline_at = None if deadline_s is None else time.monotonic() + deadline_s
    return Job(
        model,
        resolved,
        recorder,
        InlineExecutor(),
        deadline_at,
        tenant=tenant,
        log=log,
        mixture=mixture,
    )


def make_batcher(policy: SchedulingPolicy = FIRST_COME) -> StepBatcher:
    """Make a batcher whose errors quote the exception."""
    return StepBatcher(policy, lambda fault: InternalError(repr(fault)))


def run_jobs(*jobs: Job) -> None:
    """Submit jobs together and run them to the end."""
    batcher = make_batcher()
    for job in jobs:
        batcher.add(job)
    take_steps(batcher)


def take_steps(batcher: StepBatcher, count: int | None = None) -> None:
    """Run `count` steps of a batcher, or all steps of its jobs."""
    with torch.no_grad():
        while batcher.jobs and count != 0:
            batcher.step()
            count = None if count is None else count - 1


def run_job(model: LoadedModel, **request: Any) -> list[Event]:
    """Run a small request and return its events."""
    recorder = Recorder()
    run_jobs(make_job(model, recorder, **request))
    if recorder.error is not None:
        raise recorder.error
    return recorder.events


def draw(model: LoadedModel, **request: Any) -> bytes:
    """Run a small request; return the pixels of its only image."""
    [image] = images_of(run_job(model, **request))
    return pixels_of(image)


async def collect(
    engine: Engine, request: GenerationRequest, on_event: Callable[[Event], object] = lambda _: None
) -> list[Event]:
    """Run a request on an engine, call `on_event` with each event, and return all events."""
    events: list[Event] = []

    def record(event: Event) -> None:
        events.append(event)
        on_event(event)

    async with engine.prepare(request, record, Timeline()) as prepared:
        record(await engine.run(prepared, record))
    return events


def images_of(events: Sequence[Event]) -> list[Image]:
    """Return the image events."""
    return [event for event in events if isinstance(event, Image)]


def steps_of(events: Sequence[Event]) -> list[int]:
    """Return the step numbers of the progress events."""
    return [event.step for event in events if isinstance(event, Progress)]


def pixels_of(image: Image) -> bytes:
    """Decode an image event to raw pixels."""
    return np.asarray(PIL.Image.open(io.BytesIO(image.data))).tobytes()


def difference(pixels: bytes, others: bytes) -> int:
    """Return the largest difference between two images, in levels of 0 to 255."""
    first, second = (np.frombuffer(data, np.uint8).astype(int) for data in (pixels, others))
    return int(np.abs(first - second).max())


@dataclass
class Forwards:
    """Number of forwards of a denoiser."""

    count: int = 0


@contextmanager
def count_forwards(
    model: LoadedModel, on_forward: Callable[[], object] = lambda: None
) -> Iterator[Forwards]:
    """Count the forwards of the model's denoiser, and call `on_forward` in each."""
    forwards = Forwards()

    def note(*_: Any) -> None:
        forwards.count += 1
        on_forward()

    hook = model.denoiser.register_forward_pre_hook(note)
    try:
        yield forwards
    finally:
        hook.remove()
