"""Calibration: measures which steps of a model an image can reuse at the least cost."""

import io
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import torch

from safelight_service.core.errors import report_fault
from safelight_service.core.events import Image
from safelight_service.core.request import GenerationRequest, OutputOptions, Parameters
from safelight_service.core.validation import resolve
from safelight_service.engine.batching.policy import FIRST_COME
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.engine.event_relay import PendingEvent
from safelight_service.engine.job import Job
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.models.reuse_curves import CURVES_FILE, ReuseCurves
from safelight_service.engine.sampling.reuse import FIRST_STEPS, StepReuse
from safelight_service.settings import ConfigurationError, Settings

PROMPTS = (
    "a photograph of a mountain lake at dawn",
    "a portrait of an old fisherman, oil on canvas",
    "a red circle on a blue background",
    "a busy street market in the rain, watercolour",
)


def calibrate_model(
    settings: Settings,
    name: str,
    prompts: Sequence[str] = PROMPTS,
    scheduler: str | None = None,
    step_count: int | None = None,
) -> tuple[Path, str]:
    """Measure the steps of a configured model, and store the curve for the next start.

    Returns the file and the name of the scheduler.

    Raises:
        ConfigurationError: the settings have no such model, or no file for profiles.
        SafelightError: the model makes no images with these parameters.
        OSError: the file cannot be written.
    """
    models = {model.name: model for model in settings.models}
    if name not in models:
        raise ConfigurationError(f"there is no model {name!r}; there are: {', '.join(models)}")
    profiles = settings.batching.profiles_file
    if profiles is None:
        raise ConfigurationError("set batching.profiles_file: the curve is stored beside it")
    if settings.torch_threads is not None:
        torch.set_num_threads(settings.torch_threads)
    model = load_model(models[name], settings.batching)
    scheduler = scheduler or model.capabilities.defaults.scheduler
    errors = measure(model, prompts, scheduler, step_count)
    file = profiles.with_name(CURVES_FILE)
    ReuseCurves(file).put(model.identity, scheduler, errors)
    return file, scheduler


def measure(
    model: LoadedModel, prompts: Sequence[str], scheduler: str, step_count: int | None = None
) -> tuple[float, ...]:
    """Return the mean error of an image for each step, if only that step is reused.

    The error is the mean absolute difference of the pixels, in levels of 255. The first steps and
    the last one, which are never reused, count as the worst other one.

    Raises:
        SafelightError: the model makes no images with these parameters.
    """
    steps = step_count or model.capabilities.defaults.num_inference_steps
    places = range(FIRST_STEPS, steps - 1)
    totals = dict.fromkeys(places, 0.0)
    for number, prompt in enumerate(prompts):
        parameters = Parameters(num_inference_steps=steps, scheduler=scheduler, seed=number)
        full, *others = _draw(model, prompt, parameters, [None, *places])
        for place, pixels in zip(places, others, strict=True):
            totals[place] += float(np.abs(pixels - full).mean()) / len(prompts)
    worst = max(totals.values(), default=1.0)
    return tuple(totals.get(step, worst) for step in range(steps))


class _Pixels:
    """Event relay that keeps the image of a job."""

    def __init__(self) -> None:
        self._image: Future[Image] | None = None
        self._error: BaseException | None = None

    def post(self, event: PendingEvent) -> None:
        if isinstance(event, Future):
            self._image = event  # type: ignore[assignment]  # without previews, the image alone

    def close(self, error: BaseException | None = None) -> None:
        self._error = self._error or error

    def take(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """Return the pixels (height, width, 3), from 0 to 255.

        Raises:
            SafelightError: the job has failed.
        """
        if self._error is not None:
            raise self._error
        assert self._image is not None
        picture = PIL.Image.open(io.BytesIO(self._image.result().data))
        return np.asarray(picture, np.float32)


def _draw(
    model: LoadedModel, prompt: str, parameters: Parameters, reused: Sequence[int | None]
) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Make an image for each reused step, None for no reuse; all in shared forwards."""
    request = GenerationRequest(prompt, parameters, output=OutputOptions("image/png"))
    resolved = resolve(request, model.capabilities, model.adapter.count_tokens)
    batcher = StepBatcher(FIRST_COME, report_fault)
    relays = [_Pixels() for _ in reused]
    with ThreadPoolExecutor(1) as encoders, torch.no_grad():
        for step, relay in zip(reused, relays, strict=True):
            job = Job(model, resolved, relay, encoders)
            job.images[0].reuse = StepReuse(frozenset() if step is None else frozenset({step}))
            batcher.add(job)
        while batcher.jobs:
            batcher.step()
    return [relay.take() for relay in relays]
