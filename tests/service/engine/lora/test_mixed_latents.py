"""Mixed latents: images with different adapters share forwards, and are equal to each alone."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from safelight_service.engine.job import Job
from safelight_service.engine.lora.conversion import convert
from safelight_service.engine.lora.lora import NO_ADAPTERS, Lora, Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from support.engine.job_runs import Recorder, make_job
from support.engine.tiny_models import TinyModels, reload
from support.pipelines.loras import fuse, make_dora, make_lokr, make_lora
from tests.service.engine.merging.test_merged_latents import TOLERANCE, run_to_latents

FAMILIES = ("sd15", "sdxl", "sd3", "flux-dev", "qwen-image", "z-image")
OTHERS = ("lcm", "flux2-klein", "chroma", "sana", "lumina2", "aura-flow", "cogview4", "hidream")

ROWLESS = ("all_x_embedder", "cap_embedder", "ff_i")
"""Layers of Z-Image and HiDream that see all images as one row."""

SHORT: dict[str, Any] = {"num_inference_steps": 2, "height": 64}


def sees_rows(name: str) -> bool:
    return not any(part in name for part in ROWLESS)


def is_attention(name: str) -> bool:
    return sees_rows(name) and "att" in name


def load(model: LoadedModel, tensors: dict[str, torch.Tensor], digest: str) -> Lora:
    return Lora(
        digest, digest, convert(tensors, {}, model.adapter.pipeline, model.adapter.execution_device)
    )


def make_mixtures(model: LoadedModel) -> list[Mixture]:
    pipeline = model.adapter.pipeline
    wide = load(model, make_lora(pipeline, 1, 2, is_chosen=sees_rows), "wide")
    narrow = load(model, make_lora(pipeline, 2, 3, is_chosen=is_attention), "narrow")
    dora = load(model, make_dora(pipeline, 3, 1, is_chosen=is_attention), "dora")
    lokr = load(model, make_lokr(pipeline, 5, is_chosen=sees_rows), "lokr")
    return [
        Mixture(((wide, 0.7),)),
        NO_ADAPTERS,
        Mixture(((narrow, 1.5), (dora, 0.5))),
        Mixture(((narrow, 0.5), (wide, -0.4), (lokr, 0.5))),
    ]


def make_jobs(model: LoadedModel, mixtures: Sequence[Mixture]) -> list[Job]:
    """Make a job for each mixture; one of them is not guided."""
    is_guided = "guidance_scale" in model.capabilities.supported_parameters
    scales: list[dict[str, Any]] = [
        {"guidance_scale": 1.0 if number == 2 else 3.0} for number in range(len(mixtures))
    ]
    return [
        make_job(
            model, Recorder(), seed=number, mixture=mixture, **SHORT, **(scale if is_guided else {})
        )
        for number, (mixture, scale) in enumerate(zip(mixtures, scales, strict=True))
    ]


def check_mixed(model: LoadedModel) -> None:
    """Check that images with different adapters share forwards, and equal each alone."""
    mixtures = make_mixtures(model)
    alone = [run_to_latents([job])[0] for job in make_jobs(model, mixtures)]
    jobs = make_jobs(model, mixtures)
    mixed = run_to_latents(jobs, turns_between=0)
    assert all(max(job.widths) > 1 for job in jobs)
    for latents, expected in zip(mixed, alone, strict=True):
        assert (latents - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("family", FAMILIES)
def test_images_with_different_adapters_equal_each_alone(
    tiny_models: TinyModels, family: str
) -> None:
    check_mixed(tiny_models[family])


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
def test_other_families_mix_as_well(tiny_models: TinyModels, family: str) -> None:
    check_mixed(tiny_models[family])


@pytest.mark.parametrize("make", [make_lora, make_dora, make_lokr])
@pytest.mark.parametrize(
    "family", [FAMILIES[0], *(pytest.param(each, marks=pytest.mark.slow) for each in FAMILIES[1:])]
)
def test_an_adapter_has_the_effect_of_changed_weights(
    tiny_models: TinyModels, family: str, make: Callable[..., dict[str, torch.Tensor]]
) -> None:
    model = tiny_models[family]
    tensors = make(model.adapter.pipeline, 1)  # of all layers, rowless ones too
    mixture = Mixture(((load(model, tensors, make.__name__), 0.7),))
    pipeline = copy.deepcopy(model.adapter.pipeline)
    fuse(getattr(pipeline, model.adapter.denoiser_name), tensors, 0.7)
    [plain] = run_to_latents([make_job(model, Recorder(), **SHORT)])
    [found] = run_to_latents([make_job(model, Recorder(), mixture=mixture, **SHORT)])
    [expected] = run_to_latents([make_job(reload(pipeline), Recorder(), **SHORT)])
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert (found - plain).abs().max() > 100 * TOLERANCE * plain.abs().max()


def test_images_of_adapters_in_rowless_layers_share_with_equal_ones_only(
    tiny_models: TinyModels,
) -> None:
    model = tiny_models["z-image"]
    lora = load(model, make_lora(model.adapter.pipeline, 1), "all")
    mixtures = [Mixture(((lora, scale),)) for scale in (1.0, 1.0, 0.5)]
    jobs = make_jobs(model, [*mixtures, NO_ADAPTERS])
    run_to_latents(jobs, turns_between=0)
    assert [max(job.widths) for job in jobs] == [2, 2, 1, 1]


def test_images_without_adapters_keep_their_bits(tiny_models: TinyModels) -> None:
    model = tiny_models["sd15"]
    wide = make_mixtures(model)[0]
    beside = run_to_latents(make_jobs(model, [NO_ADAPTERS, wide, NO_ADAPTERS]), turns_between=0)
    plain = run_to_latents(make_jobs(model, [NO_ADAPTERS] * 3), turns_between=0)
    assert torch.equal(beside[0], plain[0])
    assert torch.equal(beside[2], plain[2])
    assert not torch.equal(beside[1], plain[1])


def test_no_hook_stays_on_the_layers(tiny_models: TinyModels) -> None:
    model = tiny_models["sd15"]
    [before] = run_to_latents([make_job(model, Recorder(), **SHORT)])
    run_to_latents(make_jobs(model, make_mixtures(model)), turns_between=0)
    # A hook that stayed would also show in a copy, whose forwards no mixer touches.
    unmixed = reload(copy.deepcopy(model.adapter.pipeline))
    [after] = run_to_latents([make_job(unmixed, Recorder(), **SHORT)])
    assert torch.equal(before, after)


def test_text_encoders_take_adapters_too(tiny_models: TinyModels) -> None:
    model = tiny_models["sdxl"]
    pipeline = copy.deepcopy(model.adapter.pipeline)
    tensors = {
        **make_lora(pipeline, 1, component="text_encoder"),
        **make_lora(pipeline, 2, component="text_encoder_2"),
    }
    lora = load(model, tensors, "texts")
    for component in ("text_encoder", "text_encoder_2"):
        own = {name: each for name, each in tensors.items() if name.startswith(f"{component}.")}
        fuse(getattr(pipeline, component), own, 0.7)
    [plain] = run_to_latents([make_job(model, Recorder(), **SHORT)])
    [found] = run_to_latents(
        [make_job(model, Recorder(), mixture=Mixture(((lora, 0.7),)), **SHORT)]
    )
    [expected] = run_to_latents([make_job(reload(pipeline), Recorder(), **SHORT)])
    [again] = run_to_latents([make_job(model, Recorder(), **SHORT)])
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert not torch.allclose(found, plain, atol=1e-3)
    assert torch.equal(again, plain)
