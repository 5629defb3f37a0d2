"""Engine access: the only part of the benchmarks that uses the service's internals."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch

from benchmarks.gpu.architectures import make_pipeline
from benchmarks.gpu.session import Session
from safelight_service.app import make_server
from safelight_service.engine import Engine
from safelight_service.engine.event_relay import PendingEvent
from safelight_service.engine.job import Job
from safelight_service.engine.models import loading
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model, silence_libraries
from safelight_service.engine.operations import Forward
from safelight_service.logs import configure_logs
from safelight_service.settings import (
    EMBEDDED_MODEL,
    BatchingSettings,
    CacheSettings,
    ModelSettings,
    Settings,
)
from support.engine.job_runs import Recorder, make_batcher, make_job, run_jobs
from support.engine.tiny_models import TinyModels

Model: TypeAlias = LoadedModel
"""A model loaded by the service."""

_NAME = "model"

_BATCHING = BatchingSettings(profiles_file=None)
_NO_CACHE = CacheSettings(enabled=False)
_MAX_WIDTH = 16
ENCODER_THREADS = 2
"""Equal to the engine's own number."""


def use_random_weights(session: Session) -> None:
    """Make the service build architectures with random weights instead of loading files.

    From now on, `load_model` in this process builds the architecture that the folder is
    named after. This saves writing and reading up to twenty gigabytes of random weights.
    """

    def build(_index: object, _components: object, folder: Path, *_: object) -> Any:
        device = torch.device(session.device)
        return make_pipeline(folder.name, device, shrunk=session.is_rehearsal)

    vars(loading)["assemble"] = build


def describe_model(
    session: Session, architecture: str, acceleration: Mapping[str, object]
) -> ModelSettings:
    """Return settings that load an architecture by `use_random_weights`.

    Their folder holds only the index, which the service reads first.
    """
    folder = Path(tempfile.mkdtemp()) / architecture
    folder.mkdir()
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    return ModelSettings.model_validate(
        {
            "name": _NAME,
            "source": str(folder),
            "device": session.device,
            "warm_up": not session.is_rehearsal,  # at full size, seconds a step on a CPU
            "acceleration": acceleration,
        }
    )


def load(session: Session, architecture: str, **acceleration: object) -> Model:
    """Load an architecture with random weights as the service loads a model.

    Raises:
        ValueError: the acceleration is unknown.
        AccelerationError: the architecture or the device does not support it.
    """
    silence_libraries()
    use_random_weights(session)
    settings = describe_model(session, architecture, acceleration)
    return load_model(settings, BatchingSettings(max_width=_MAX_WIDTH))


def pipeline_of(model: Model) -> Any:
    """Return the diffusers pipeline of a model."""
    return model.adapter.pipeline


def load_tiny(models: TinyModels, family: str, device: str, dtype: str) -> Model:
    """Load the tiny model of a family from its files onto a device."""
    silence_libraries()
    settings = models.settings(family).model_copy(update={"device": device, "dtype": dtype})
    return load_model(settings, BatchingSettings(max_width=_MAX_WIDTH))


@asynccontextmanager
async def run_embedded(device: str, dtype: str) -> AsyncIterator[Engine]:
    """Run an engine with the embedded model on a device."""
    model = ModelSettings.model_validate(
        {"name": EMBEDDED_MODEL, "source": EMBEDDED_MODEL, "device": device, "dtype": dtype}
    )
    engine = Engine(Settings(models=(model,), batching=_BATCHING, cache=_NO_CACHE))
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()


def first_forward(model: Model, side_px: int, steps: int) -> Forward:
    """Return the denoiser's forward at the first step of an image."""
    with torch.no_grad():
        [image] = _make_job(model, Recorder(), side_px, steps, 0).images
        image.start()
        assert isinstance(image.operation, Forward)
        while not model.is_ready_for(image.operation):  # captures graphs, one width at a time
            model.prepare(image.job.cost_model, image.operation)
    return image.operation


def run_forward(model: Model, call: Forward, width: int) -> None:
    """Run a forward merged with copies of itself, as `width` images would share it."""
    with torch.no_grad():
        model.run([call] * width)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of an image: the type of its error, if any, and its forwards by width."""

    error: str | None
    widths: Mapping[int, int]


def draw(model: Model, side_px: int, steps: int, count: int = 1) -> list[Outcome]:
    """Make `count` images, all submitted at once, with a batcher in this thread."""
    recorders = [Recorder() for _ in range(count)]
    jobs = [
        _make_job(model, recorder, side_px, steps, seed) for seed, recorder in enumerate(recorders)
    ]
    run_jobs(*jobs)
    return [
        Outcome(type(recorder.error).__name__ if recorder.error else None, dict(job.widths))
        for job, recorder in zip(jobs, recorders, strict=True)
    ]


class Callers:
    """Callers that request one image after another, served by a batcher in this thread."""

    def __init__(self, model: Model, side_px: int, steps: int, count: int) -> None:
        self._model = model
        self._side_px = side_px
        self._steps = steps
        self._batcher = make_batcher()
        self._encoders = ThreadPoolExecutor(ENCODER_THREADS)
        self._waiting: list[QuietRecorder] = []
        self._image_count = 0
        for number in range(count):  # start at different steps, as after a while of service
            self._ask(max(1, steps * (number + 1) // count))

    def turn(self) -> None:
        """Run one forward, and the work between it and the next.

        Raises:
            SafelightError: the image of a caller has failed.
        """
        with torch.no_grad():
            self._batcher.step()
        for caller in [caller for caller in self._waiting if caller.is_closed]:
            if caller.error is not None:
                raise caller.error
            self._waiting.remove(caller)
            self._ask(self._steps)

    def close(self) -> None:
        """Stop all unfinished images."""
        with torch.no_grad():
            self._batcher.stop()
        self._encoders.shutdown()

    def _ask(self, steps: int) -> None:
        caller = QuietRecorder()
        job = _make_job(self._model, caller, self._side_px, steps, self._image_count)
        job.encoders = self._encoders  # compress images outside this thread
        self._batcher.add(job)
        self._waiting.append(caller)
        self._image_count += 1


class QuietRecorder(Recorder):
    """Recorder that ignores all events but the end."""

    def post(self, event: PendingEvent) -> None:
        """Do nothing."""


def _make_job(model: Model, recorder: Recorder, side_px: int, steps: int, seed: int) -> Job:
    return make_job(
        model,
        recorder,
        inputs=f"a lighthouse {seed}",  # never in the prompt cache
        width=side_px,
        height=side_px,
        num_inference_steps=steps,
        seed=seed,
    )


def serve(
    session: Session, architecture: str, acceleration: Mapping[str, object], ready: int
) -> None:
    """Serve an architecture with random weights until its device is lost.

    Writes HOST:PORT and a newline to the file descriptor `ready` once it accepts calls.
    """
    use_random_weights(session)
    settings = Settings(
        listen="127.0.0.1:0",
        models=(describe_model(session, architecture, acceleration),),
        batching=_BATCHING,
        cache=_NO_CACHE,
        log_level="warning",
    )
    configure_logs(settings)
    asyncio.run(_serve(settings, ready))


async def _serve(settings: Settings, ready: int) -> None:
    async with make_server(settings) as server:
        os.write(ready, f"{server.address}\n".encode())
        os.close(ready)
        await server.wait_until_lost()
