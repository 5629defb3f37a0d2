"""Loading as the settings ask."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model
from safelight_service.settings import ModelSettings
from support.engine.job_runs import (
    SMALL,
    Recorder,
    difference,
    draw,
    images_of,
    make_job,
    pixels_of,
    run_jobs,
)
from support.engine.tiny_models import MERGING
from support.pipelines.families import make_pipeline

SEEDS = (7, 8, 9)
UPCASTING = ("sdxl", "aura-flow")
"""Families whose pipelines bring their VAE to float32 before they decode."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    thread_count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(thread_count)


def save(family: str, folder: Path, *, force_upcast: bool) -> ModelSettings:
    """Save a family with a VAE that does overflow in float16, whatever its configuration says."""
    pipeline: Any = make_pipeline(family)
    pipeline.vae.decoder.conv_in.weight.data.mul_(1e5)
    pipeline.vae.register_to_config(force_upcast=force_upcast)
    pipeline.save_pretrained(folder)
    return ModelSettings(
        name=family, source=str(folder), device="cpu", dtype="float16", warm_up=False
    )


def draw_by_diffusers(settings: ModelSettings, seed: int) -> bytes:
    """Draw the picture with the pipeline as it is, which casts its VAE up and back."""
    pipeline: Any = DiffusionPipeline.from_pretrained(settings.source, dtype=torch.float16)
    pipeline.set_progress_bar_config(disable=True)
    size_and_steps = {name: value for name, value in SMALL.items() if name != "seed"}
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        result = pipeline(
            "a red circle", generator=torch.Generator("cpu").manual_seed(seed), **size_and_steps
        )
    return np.asarray(result.images[0]).tobytes()


@pytest.mark.parametrize("family", UPCASTING)
def test_a_vae_that_overflows_in_float16_decodes_in_float32_however_many_do(
    tmp_path: Path, family: str
) -> None:
    settings = save(family, tmp_path, force_upcast=True)
    model = load_model(settings, MERGING)
    recorders = [Recorder() for _ in SEEDS]
    run_jobs(
        *(make_job(model, each, seed=seed) for each, seed in zip(recorders, SEEDS, strict=True))
    )
    for recorder, seed in zip(recorders, SEEDS, strict=True):
        assert recorder.error is None
        [image] = images_of(recorder.events)
        assert difference(pixels_of(image), draw(model, seed=seed)) <= 1
        assert draw(model, seed=seed) == draw_by_diffusers(settings, seed)
    assert model.denoiser.dtype == torch.float16


def test_a_vae_that_overflows_in_float16_has_previews(tmp_path: Path) -> None:
    model = load_model(save("sdxl", tmp_path, force_upcast=True))
    assert model.latent_colours is not None
    assert model.latent_colours.weight.isfinite().all()


@pytest.mark.parametrize(("family", "force_upcast"), [("sdxl", False), ("sd15", True)])
def test_other_vaes_stay_in_float16(tmp_path: Path, family: str, force_upcast: bool) -> None:
    model: LoadedModel = load_model(save(family, tmp_path, force_upcast=force_upcast))
    assert model.adapter.pipeline.vae.dtype == torch.float16
