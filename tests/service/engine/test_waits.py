"""Waits: the host waits for the device only for pixels of images and of previews."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.sampling.schedulers import SchedulerChoice
from support.engine.job_runs import (
    Recorder,
    difference,
    draw,
    images_of,
    make_batcher,
    make_job,
    pixels_of,
    take_steps,
)
from support.engine.simulated_gpu import SimulatedGpu, move, simulate_gpu
from support.engine.tiny_models import reload
from support.pipelines.families import make_pipeline

STEPS = 3
PIXELS = "device to host"
NOISY = ("ddpm", "dpm++_2m_sde", "euler_a", "lcm", "tcd")
"""Schedulers that add noise at each step."""


@contextmanager
def on_gpu(family: str) -> Iterator[tuple[LoadedModel, SimulatedGpu]]:
    """Yield a family's model on a simulated GPU."""
    pipeline = make_pipeline(family)
    SchedulerChoice(
        pipeline.scheduler, type(pipeline)
    )  # rehearses faster than within the simulation
    move(pipeline)
    with pytest.MonkeyPatch.context() as patch, simulate_gpu(patch) as gpu:
        yield reload(pipeline), gpu


def list_schedulers(model: LoadedModel) -> list[str]:
    infos = model.capabilities.schedulers
    return [name for info in infos for name in (info.aliases or (info.name,))]


def make_image(model: LoadedModel, **request: object) -> bytes:
    recorder = Recorder()
    batcher = make_batcher()
    batcher.add(make_job(model, recorder, num_inference_steps=STEPS, **request))  # type: ignore[arg-type]
    take_steps(batcher)
    if recorder.error is not None:
        raise recorder.error
    [image] = images_of(recorder.events)
    return pixels_of(image)


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux-dev", "qwen-image"])
def test_a_generation_waits_for_its_pixels_alone(family: str) -> None:
    with on_gpu(family) as (model, gpu):
        for scheduler in list_schedulers(model):
            gpu.waits.clear()
            make_image(model, scheduler=scheduler)  # the first one encodes the prompt
            assert dict(gpu.kinds) == {PIXELS: 1}, gpu.waits


@pytest.mark.parametrize("family", ["sd15", "flux-dev"])
def test_a_preview_waits_for_its_own_pixels(family: str) -> None:
    with on_gpu(family) as (model, gpu):
        gpu.waits.clear()
        make_image(model, preview_interval=1)
        assert dict(gpu.kinds) == {PIXELS: STEPS}


@pytest.mark.parametrize("scheduler", NOISY)
def test_noise_that_is_drawn_ahead_is_that_of_the_seed(scheduler: str) -> None:
    plain = reload(make_pipeline("sd15"))
    with on_gpu("sd15") as (model, _):
        made = make_image(model, scheduler=scheduler, seed=11)
    expected = draw(plain, scheduler=scheduler, seed=11, num_inference_steps=STEPS)
    assert difference(made, expected) <= 1
