"""Values that are not finite fail their own image, and are never shown as a picture."""

import math
from typing import Any

import pytest
import torch
from diffusers import DDPMScheduler, DPMSolverMultistepScheduler
from PIL.Image import Resampling

from safelight_service.core.errors import NonFiniteImageError
from safelight_service.core.events import Image, Preview
from safelight_service.engine.models.loaded_model import LoadedModel
from support.engine.job_runs import Recorder, draw, images_of, make_job, pixels_of, run_jobs
from support.engine.simulated_gpu import move, simulate_gpu
from support.engine.tiny_models import TinyModels, reload
from support.pipelines.families import FAMILIES, make_pipeline
from support.pipelines.safety_checkers import make_checked_pipeline


def run(model: LoadedModel, **request: Any) -> Recorder:
    recorder = Recorder()
    run_jobs(make_job(model, recorder, **request))
    return recorder


def decode_to(value: float, pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the VAE answer at once, with one value that pipelines clamp or leave."""

    def decode(latents: torch.Tensor, **_: Any) -> tuple[torch.Tensor]:
        factor = pipeline.vae_scale_factor
        pixels = torch.zeros_like(latents[:, :3]).repeat_interleave(factor, dim=-2)
        pixels = pixels.repeat_interleave(factor, dim=-1)
        pixels[..., 0, 0] = value
        return (pixels,)

    monkeypatch.setattr(pipeline.vae, "decode", decode)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pixel_that_is_not_finite_fails_the_image(
    family: str, tiny_models: TinyModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models[family]
    for value in (math.nan, math.inf):
        decode_to(value, model.adapter.pipeline, monkeypatch)
        recorder = run(model, num_inference_steps=1)
        assert isinstance(recorder.error, NonFiniteImageError)
        assert not images_of(recorder.events)


def test_weights_that_are_not_finite_fail_the_image() -> None:
    pipeline: Any = make_pipeline("sd15")
    pipeline.vae.decoder.conv_out.weight.data[0, 0, 0, 0] = math.nan
    assert isinstance(run(reload(pipeline)).error, NonFiniteImageError)


def test_a_vae_that_overflows_fails_the_image() -> None:
    pipeline: Any = make_pipeline("sd15")
    pipeline.vae.half()
    pipeline.vae.decoder.conv_out.weight.data.mul_(6e4)
    assert isinstance(run(reload(pipeline)).error, NonFiniteImageError)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_latents_that_are_not_finite_fail_their_image_and_no_other_of_the_forward(
    value: float, tiny_models: TinyModels
) -> None:
    model = tiny_models["sd15"]
    expected = draw(model, seed=2)
    spoilt, good = Recorder(), Recorder()
    widths = []

    def spoil(_: Any, __: Any, output: Any) -> None:
        widths.append(len(output[0]))
        output[0][:2] = value  # the two rows of the first image

    hook = model.denoiser.register_forward_hook(spoil)
    try:
        run_jobs(
            make_job(model, spoilt, seed=1, preview_interval=1),
            make_job(model, good, seed=2, preview_interval=1),
        )
    finally:
        hook.remove()
    assert max(widths) == 4
    assert isinstance(spoilt.error, NonFiniteImageError)
    assert not any(isinstance(event, Image | Preview) for event in spoilt.events)
    assert good.error is None
    assert sum(isinstance(event, Preview) for event in good.events) == 2
    assert pixels_of(images_of(good.events)[0]) == expected


def test_a_flagged_image_of_no_finite_values_fails() -> None:
    """A checker blackens pictures; this must not hide that there was none."""
    pipeline: Any = make_checked_pipeline()
    model = reload(pipeline)
    assert model.safety_checker is not None
    model.safety_checker.thresholds.fill_(-1.0)  # flags all
    [image] = images_of(run(model).events)
    assert image.is_flagged
    pipeline.vae.decoder.conv_out.weight.data[0, 0, 0, 0] = math.nan
    assert isinstance(run(model).error, NonFiniteImageError)


@pytest.mark.parametrize("is_own", [False, True], ids=["the service's", "the pipeline's"])
@pytest.mark.parametrize("name", ["visual_projection.weight", "concept_embeds_weights"])
def test_an_image_whose_safety_is_not_known_fails(name: str, is_own: bool) -> None:
    """A score that is not a number is above no threshold, and would pass every picture."""
    pipeline: Any = make_checked_pipeline()
    pipeline.safety_checker.get_parameter(name).data.fill_(math.nan)
    if is_own:
        pipeline.feature_extractor.resample = Resampling.BILINEAR
    model = reload(pipeline)
    assert (model.safety_checker is None) is is_own
    error = run(model).error
    assert isinstance(error, NonFiniteImageError), error


@pytest.mark.parametrize(
    ("scheduler", "row"),
    [
        (DDPMScheduler(clip_sample=True), 0),
        (DDPMScheduler(clip_sample=True), 1),
        (DPMSolverMultistepScheduler(thresholding=True), 1),
    ],
    ids=["clipped, no prompt", "clipped, prompt", "thresholded"],
)
def test_an_infinite_prediction_that_the_scheduler_clamps_fails_the_image(
    scheduler: Any, row: int
) -> None:
    pipeline: Any = make_pipeline("sd15")
    pipeline.scheduler = scheduler
    model = reload(pipeline)

    def spoil(_: Any, __: Any, output: Any) -> None:
        output[0][row, 0, 0, 0] = math.inf

    assert run(model).error is None
    model.denoiser.register_forward_hook(spoil)
    assert isinstance(run(model).error, NonFiniteImageError)


@pytest.mark.parametrize("value", [math.nan, 0.0])
def test_a_vae_that_encodes_nothing_has_no_previews(value: float) -> None:
    pipeline: Any = make_pipeline("sd15")
    for weight in pipeline.vae.quant_conv.parameters():
        weight.data.fill_(value)
    model = reload(pipeline)
    assert not model.capabilities.has_previews
    assert images_of(run(model, num_inference_steps=1).events)


def test_the_check_adds_no_wait() -> None:
    pipeline: Any = make_pipeline("sd15")
    pipeline.vae.decoder.conv_out.weight.data[0, 0, 0, 0] = math.nan
    move(pipeline)
    with pytest.MonkeyPatch.context() as patch, simulate_gpu(patch) as gpu:
        model = reload(pipeline)
        gpu.waits.clear()
        assert isinstance(run(model, preview_interval=2).error, NonFiniteImageError)
        assert dict(gpu.kinds) == {"device to host": 2}, gpu.waits  # a preview and the image
