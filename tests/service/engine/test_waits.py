"""Waits: the host waits for the device only for pixels of images and of previews."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from safelight_service.engine.lora.conversion import convert
from safelight_service.engine.lora.lora import NO_ADAPTERS, Lora, Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.recovery.log_writer import LogWriter
from safelight_service.engine.recovery.run_logs import RunLog
from safelight_service.engine.recovery.stores import FolderStore
from safelight_service.engine.sampling.reuse import choose_steps
from safelight_service.engine.sampling.schedulers import SchedulerChoice
from support.engine.job_runs import (
    Recorder,
    difference,
    draw,
    images_of,
    make_job,
    pixels_of,
    run_jobs,
)
from support.engine.simulated_gpu import DEVICE, SimulatedGpu, move, simulate_gpu
from support.engine.tiny_models import reload
from support.pipelines.families import make_pipeline
from support.pipelines.loras import make_dora, make_lokr, make_lora

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


def make_image(model: LoadedModel, **request: Any) -> bytes:
    [pixels] = make_images(model, request)
    return pixels


def make_images(model: LoadedModel, *requests: dict[str, Any]) -> list[bytes]:
    """Make an image for each request, all submitted at once."""
    recorders = [Recorder() for _ in requests]
    jobs = [
        make_job(model, recorder, **{"num_inference_steps": STEPS, **request})
        for recorder, request in zip(recorders, requests, strict=True)
    ]
    run_jobs(*jobs)
    for recorder in recorders:
        if recorder.error is not None:
            raise recorder.error
    return [pixels_of(image) for each in recorders for image in images_of(each.events)]


def is_in_middle(layer: str) -> bool:
    return "mid_block" in layer


def make_loras(family: str) -> list[Lora]:
    """Make adapters of all kinds on the host, where a DoRA can read the weights."""
    pipeline = make_pipeline(family)
    files = [
        make(pipeline, seed, is_chosen=is_in_middle)
        for seed, make in enumerate((make_lora, make_dora, make_lokr))
    ]
    return [
        Lora(f"{number}", f"{number}", convert(tensors, {}, pipeline, torch.device("cpu")))
        for number, tensors in enumerate(files)
    ]


def to_gpu(lora: Lora) -> Lora:
    effects = {
        component: {
            layer: type(effect)(*(tensor.to(DEVICE) for tensor in effect))
            for layer, effect in layers.items()
        }
        for component, layers in lora.effects.items()
    }
    return replace(lora, effects=effects)


@contextmanager
def open_log(folder: Path) -> Iterator[RunLog]:
    """Open the log of a run of one image; end its thread."""
    store, writer = FolderStore(folder, 60, 1 << 24), LogWriter(1 << 24)
    try:
        yield RunLog(["run"], store.load(["run"]), store, writer, 1 << 24)
    finally:
        writer.close()


@pytest.mark.parametrize("family", ["sd15", "sdxl", "sd3", "flux-dev", "qwen-image"])
def test_a_generation_waits_for_its_pixels_alone(family: str) -> None:
    with on_gpu(family) as (model, gpu):
        for scheduler in list_schedulers(model)[:: 4 if family == "sdxl" else 1]:  # as in SD 1.5
            gpu.waits.clear()
            make_image(model, scheduler=scheduler)  # the first one encodes the prompt
            assert dict(gpu.kinds) == {PIXELS: 1}, gpu.waits


@pytest.mark.parametrize("family", ["sd15", "flux-dev"])
def test_a_preview_waits_for_its_own_pixels(family: str) -> None:
    with on_gpu(family) as (model, gpu):
        gpu.waits.clear()
        make_image(model, preview_interval=1)
        assert dict(gpu.kinds) == {PIXELS: STEPS}


def test_steps_that_are_reused_wait_for_nothing() -> None:
    steps, share = 5, 0.34
    assert choose_steps(steps, share)
    with on_gpu("z-image") as (model, gpu):  # its outputs are lists
        gpu.waits.clear()
        make_image(model, num_inference_steps=steps, step_reuse=share)
        assert dict(gpu.kinds) == {PIXELS: 1}, gpu.waits


def test_forwards_with_an_adapter_for_each_image_wait_for_nothing() -> None:
    loras = make_loras("sd15")
    with on_gpu("sd15") as (model, gpu):
        mixtures = [NO_ADAPTERS, *(Mixture(((to_gpu(lora), 0.7),)) for lora in loras)]
        gpu.waits.clear()
        make_images(
            model, *({"mixture": mixture, "num_inference_steps": 2} for mixture in mixtures)
        )
        assert dict(gpu.kinds) == {PIXELS: len(mixtures)}, gpu.waits


def test_logged_forwards_wait_in_the_thread_of_the_log(tmp_path: Path) -> None:
    with on_gpu("sd15") as (model, gpu):
        for logged_count in (0, STEPS):
            gpu.waits.clear()
            with open_log(tmp_path) as log:
                assert log.step_count == logged_count
                make_image(model, log=log)
            assert dict(gpu.kinds) == {PIXELS: 1}, gpu.waits


@pytest.mark.parametrize("scheduler", NOISY)
def test_noise_that_is_drawn_ahead_is_that_of_the_seed(scheduler: str) -> None:
    plain = reload(make_pipeline("sd15"))
    with on_gpu("sd15") as (model, _):
        made = make_image(model, scheduler=scheduler, seed=11)
    expected = draw(plain, scheduler=scheduler, seed=11, num_inference_steps=STEPS)
    assert difference(made, expected) <= 1
