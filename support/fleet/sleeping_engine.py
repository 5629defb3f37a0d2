"""Sleeping engine: a backend whose steps sleep, so that a fleet is timed without arithmetic."""

import asyncio
import functools
import hashlib
import io
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import PIL.Image

from safelight_service.core.backend import BackendStats, Prepared
from safelight_service.core.errors import ModelNotFoundError, QueueFullError, StoppingError
from safelight_service.core.events import (
    Accepted,
    Completed,
    EventCallback,
    Image,
    Progress,
    Queued,
)
from safelight_service.core.model import (
    Capabilities,
    Defaults,
    Limits,
    ModelInfo,
    ModelState,
    SchedulerInfo,
)
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest, ResolvedRequest
from safelight_service.core.timeline import Timeline
from safelight_service.core.validation import resolve
from safelight_service.settings import EMBEDDED_MODEL, ModelSettings, Settings

MODEL = "sleeping"
CAPABILITIES = Capabilities(
    "SleepingPipeline",
    ("guidance_scale", "num_inference_steps", "width", "height", "scheduler", "seed"),
    Defaults(4.0, 20, 64, 64, "euler"),
    (SchedulerInfo("EulerDiscreteScheduler", ("euler",)),),
    Limits(8, 512, 8, 512 * 512, 1000, 20.0, 4, None, 10_000),
    has_previews=False,
    device_type="cpu",
)


@dataclass(frozen=True)
class SleepingPrepared(Prepared):
    """A prepared request and its id."""

    generation_id: str = field(default="", kw_only=True)


def make_sleeping_engine(
    settings: Settings, observer: Observer = NULL_OBSERVER, *, step_s: float = 0.001, width: int = 8
) -> "SleepingEngine":
    """Make an engine whose model has the revision of the settings."""
    return SleepingEngine(step_s, width, identity=settings.models[0].revision or "1")


def make_engine_of(step_s: float, width: int) -> Callable[[Settings, Observer], "SleepingEngine"]:
    """Return a maker of engines with this time of a step that run `width` generations at once."""
    return functools.partial(make_sleeping_engine, step_s=step_s, width=width)


def sleeping_settings(revision: str = "") -> Settings:
    """Return settings that serve the sleeping model."""
    model = ModelSettings(name=MODEL, source=EMBEDDED_MODEL, revision=revision)
    return Settings(models=(model,), listen="127.0.0.1:0")


class SleepingEngine:
    """Runs `width` generations at once; each step of one sleeps for `step_s` seconds.

    `elapsed_s` of its progress is the moment of the event by time.monotonic.
    """

    is_lost = False
    default_model = MODEL

    def __init__(
        self,
        step_s: float = 0.001,
        width: int = 8,
        queue_size: int = 1000,
        identity: str = "1",
    ) -> None:
        self._step_s = step_s
        self._slots = asyncio.Semaphore(width)
        self._queue_size = queue_size
        self._identity = identity
        self._waiting = 0
        self._running = 0
        self._is_draining = False
        self.started: list[str] = []
        """Ids of the generations that have begun to run, in order."""

    async def start(self) -> None:
        """Do nothing."""

    async def wait_until_lost(self) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()

    def drain(self) -> None:
        """Refuse new work."""
        self._is_draining = True

    async def close(self) -> None:
        """Refuse new work."""
        self.drain()

    def stats(self) -> BackendStats:
        """Return the present load."""
        return BackendStats(self._waiting, self._running)

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Describe the only model."""
        return (ModelInfo(MODEL, self._identity, True, ModelState.READY, CAPABILITIES),)

    def get_model(self, name: str) -> ModelInfo:
        """Describe the only model."""
        if name not in ("", MODEL):
            raise ModelNotFoundError(name, [MODEL])
        return self.list_models()[0]

    @asynccontextmanager
    async def prepare(
        self, request: GenerationRequest, on_event: EventCallback, timeline: Timeline
    ) -> AsyncIterator[SleepingPrepared]:
        """Resolve a request."""
        self.get_model(request.model)
        timeline.model = MODEL
        timeline.loaded_at = time.monotonic()
        resolved = resolve(request, CAPABILITIES, len)
        yield SleepingPrepared(
            Accepted(request.generation_id, MODEL, self._identity, resolved),
            self._identity,
            timeline,
            generation_id=request.generation_id,
        )

    async def run(self, prepared: SleepingPrepared, on_event: EventCallback) -> Completed:
        """Sleep through all steps."""
        if self._is_draining:
            raise StoppingError
        if self._waiting >= self._queue_size:
            raise QueueFullError(self._queue_size, 1.0)
        timeline = prepared.timeline
        request = prepared.accepted.request
        timeline.pixel_count = request.parameters.width * request.parameters.height
        timeline.queued_at = time.monotonic()
        on_event(prepared.accepted)
        self._waiting += 1
        if self._slots.locked():
            on_event(Queued(self._waiting, None))
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        self.started.append(prepared.generation_id)
        try:
            return await self._make(request, timeline, on_event)
        finally:
            self._running -= 1
            self._slots.release()

    async def _make(
        self, request: ResolvedRequest, timeline: Timeline, on_event: EventCallback
    ) -> Completed:
        steps = request.parameters.num_inference_steps
        widths = Counter[int]()
        for index in range(request.image_count):
            image = timeline.add_image()
            image.started_at = image.text_encoded_at = time.monotonic()
            for step in range(1, steps + 1):
                widths[await self._step(request)] += 1
                image.step_ends.append(time.monotonic())
                left_s = (steps - step) * self._step_s
                on_event(Progress(step, steps, index, time.monotonic(), left_s))
            image.denoised_at = image.decoded_at = time.monotonic()
            on_event(_draw(request, index))
        return Completed(timeline.end(), steps * request.image_count, widths)

    async def _step(self, request: ResolvedRequest) -> int:
        """Make a step of an image; return how many images shared it."""
        await asyncio.sleep(self._step_s)
        return 1


def _draw(request: ResolvedRequest, index: int) -> Image:
    """Return an image of one colour, by the prompt and the seed."""
    parameters = request.parameters
    seed = parameters.seed + index
    colour = hashlib.sha256(f"{request.inputs} {seed}".encode()).digest()
    data = io.BytesIO()
    picture = PIL.Image.new("RGB", (parameters.width, parameters.height), tuple(colour[:3]))
    picture.save(data, "PNG")
    png = data.getvalue()
    digest = hashlib.sha256(png).hexdigest()
    return Image(index, "image/png", parameters.width, parameters.height, seed, False, digest, png)
