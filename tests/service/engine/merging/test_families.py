import io
from collections.abc import Collection
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from diffusers import DiffusionPipeline

from safelight_service.core.events import (
    Event,
    Image,
    Preview,
    Progress,
)
from safelight_service.core.request import Parameters
from safelight_service.engine.models.loaded_model import LoadedModel
from support.engine.job_runs import (
    SMALL,
    Recorder,
    count_forwards,
    difference,
    draw,
    images_of,
    make_job,
    pixels_of,
    run_job,
    run_jobs,
    steps_of,
)
from support.engine.tiny_models import TinyModels
from support.pipelines.families import FAMILIES

GUIDED: dict[str, Any] = {"inputs": "a red circle", "guidance_scale": 3.0}
"""Request for a guided image, by family."""

CAPABILITIES = {
    "sd15": ("StableDiffusionPipeline", 7.5, 50, 512, 8, 77),
    "lcm": ("LatentConsistencyModelPipeline", 8.5, 4, 512, 8, 77),
    "sdxl": ("StableDiffusionXLPipeline", 5.0, 50, 512, 8, 77),
    "sd3": ("StableDiffusion3Pipeline", 7.0, 28, 1024, 16, 256),
    "flux-dev": ("FluxPipeline", 3.5, 28, 1024, 16, 512),
    "flux-schnell": ("FluxPipeline", 1.0, 28, 1024, 16, 512),
    "flux2-dev": ("Flux2Pipeline", 4.0, 50, 1024, 16, 512),
    "flux2-klein": ("Flux2KleinPipeline", 4.0, 50, 1024, 16, 512),
    "chroma": ("ChromaPipeline", 5.0, 35, 1024, 16, 512),
    "pixart-sigma": ("PixArtSigmaPipeline", 4.5, 20, 1024, 16, 300),
    "sana": ("SanaPipeline", 4.5, 20, 1024, 32, 300),
    "lumina2": ("Lumina2Pipeline", 4.0, 30, 1024, 16, 256),
    "aura-flow": ("AuraFlowPipeline", 3.5, 50, 1024, 16, 256),
    "cogview4": ("CogView4Pipeline", 5.0, 50, 1024, 16, 1024),
    "hidream": ("HiDreamImagePipeline", 5.0, 50, 256, 16, 128),
    "hunyuan-dit": ("HunyuanDiTPipeline", 5.0, 50, 1024, 16, 256),
    "qwen-image": ("QwenImagePipeline", 4.0, 50, 1024, 16, 512),
    "z-image": ("ZImagePipeline", 5.0, 50, 1024, 16, 512),
}
"""Class, guidance scale, steps, width and height, size multiple, and tokens."""

PLAIN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "flux-schnell": {"true_cfg_scale": 3.0, "negative_prompt": " "},
    "pixart-sigma": {"guidance_scale": 3.0, "use_resolution_binning": False},
    "sana": {"guidance_scale": 3.0, "use_resolution_binning": False},
    "hunyuan-dit": {"guidance_scale": 3.0, "use_resolution_binning": False},
    "qwen-image": {"true_cfg_scale": 3.0, "negative_prompt": " "},
}
"""Arguments of a plain call for the same image, where they differ from the request's."""

PLAIN_SAMPLE_SIZES = {"hidream": 10}
"""Sample sizes of plain calls to pipelines that would scale 64 x 96 to another area."""

WITHOUT_NEGATIVE_PROMPT = ("lcm", "flux2-dev", "flux2-klein")

EMBEDDED_GUIDANCE = ("lcm", "flux-dev", "flux2-dev")
"""Families whose guidance is an input of the denoiser, which no value turns off."""

FORWARDS_OF_TWO_STEPS = {
    "sd15": 3,
    "flux-schnell": 4,
    "flux2-klein": 4,
    "chroma": 4,
    "lumina2": 4,
    "cogview4": 4,
    "qwen-image": 4,
}
"""Forwards if not 2: guidance may need separate forwards, and PNDM's first step takes two."""


def families_but(exceptions: Collection[str]) -> pytest.MarkDecorator:
    """Run a test on all other families."""
    return pytest.mark.parametrize("family", [f for f in FAMILIES if f not in exceptions])


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def model(tiny_models: TinyModels, family: str) -> LoadedModel:
    return tiny_models[family]


def test_capabilities_are_those_of_the_family(model: LoadedModel, family: str) -> None:
    pipeline_class, guidance_scale, steps, side, multiple, tokens = CAPABILITIES[family]
    capabilities = model.capabilities
    defaults = capabilities.defaults
    assert capabilities.pipeline_class == pipeline_class
    assert defaults.guidance_scale == guidance_scale
    assert defaults.num_inference_steps == steps
    assert (defaults.width, defaults.height) == (side, side)
    assert defaults.scheduler == type(model.adapter.pipeline.scheduler).__name__
    assert capabilities.schedulers[0].name == defaults.scheduler
    assert capabilities.limits.size_multiple_px == multiple
    assert capabilities.limits.max_prompt_token_count == tokens


def test_every_parameter_of_the_contract_is_supported_that_the_family_knows(
    model: LoadedModel, family: str
) -> None:
    unknown = {"negative_prompt"} if family in WITHOUT_NEGATIVE_PROMPT else set()
    assert set(model.capabilities.supported_parameters) == set(Parameters.__slots__) - unknown


def test_progress_of_each_step_comes_before_the_image(model: LoadedModel) -> None:
    events = run_job(model, image_count=2, num_inference_steps=2)
    for index in range(2):
        of_image = [
            type(event).__name__
            for event in events
            if (isinstance(event, Progress) and event.image_index == index)
            or (isinstance(event, Image) and event.index == index)
        ]
        assert of_image == ["Progress", "Progress", "Image"]
    assert sorted(steps_of(events)) == [1, 1, 2, 2]


def test_image_has_exactly_the_size_that_was_asked_for(model: LoadedModel) -> None:
    [image] = images_of(run_job(model, width=96, height=64))
    assert (image.width, image.height) == (96, 64)
    assert PIL.Image.open(io.BytesIO(image.data)).size == (96, 64)


def test_image_equals_that_of_the_plain_pipeline(
    tiny_models: TinyModels, family: str, model: LoadedModel
) -> None:
    pipeline: Any = DiffusionPipeline.from_pretrained(tiny_models.folder(family))
    pipeline.set_progress_bar_config(disable=True)
    if family in PLAIN_SAMPLE_SIZES:
        pipeline.default_sample_size = PLAIN_SAMPLE_SIZES[family]
    guidance = PLAIN_ARGUMENTS.get(family, {"guidance_scale": 3.0})
    plain = pipeline(
        prompt=GUIDED["inputs"],
        width=SMALL["width"],
        height=SMALL["height"],
        num_inference_steps=SMALL["num_inference_steps"],
        generator=torch.Generator().manual_seed(SMALL["seed"]),
        **guidance,
    )
    assert draw(model, **GUIDED) == np.asarray(plain.images[0]).tobytes()


def test_seed_alone_decides_among_equal_requests(model: LoadedModel) -> None:
    first = draw(model, seed=0)
    assert draw(model, seed=0) == first
    assert draw(model, seed=1) != first


def test_each_further_image_is_that_of_the_next_seed(model: LoadedModel) -> None:
    first, second = images_of(run_job(model, image_count=2, seed=5))
    assert (first.seed, second.seed) == (5, 6)
    assert pixels_of(first) != pixels_of(second)
    # Side by side in one batch, so equal up to rounding.
    assert difference(pixels_of(second), draw(model, seed=6)) <= 1


def test_prompt_and_guidance_change_the_picture(model: LoadedModel) -> None:
    pictures = {
        draw(model, **GUIDED),
        draw(model, **{**GUIDED, "inputs": "two blue stars at night"}),
        draw(model, **{**GUIDED, "guidance_scale": 12.0}),
        draw(model, **{**GUIDED, "guidance_scale": 1.0}),
    }
    assert len(pictures) == 4


@families_but(WITHOUT_NEGATIVE_PROMPT)
def test_negative_prompt_changes_the_picture(model: LoadedModel) -> None:
    assert draw(model, negative_prompt="blurry", **GUIDED) != draw(model, **GUIDED)


@families_but(EMBEDDED_GUIDANCE)
def test_guidance_of_one_and_below_are_both_off(model: LoadedModel) -> None:
    assert draw(model, guidance_scale=0.0) == draw(model, guidance_scale=1.0)


def test_flux_dev_takes_guidance_as_an_input_unless_there_is_a_negative_prompt(
    tiny_models: TinyModels,
) -> None:
    model = tiny_models["flux-dev"]
    embedded = make_job(model, Recorder(), **GUIDED).request
    arguments = model.adapter.pipeline_arguments(embedded)
    assert arguments["guidance_scale"] == 3.0
    assert "true_cfg_scale" not in arguments
    contrasted = make_job(model, Recorder(), negative_prompt="blurry", **GUIDED).request
    arguments = model.adapter.pipeline_arguments(contrasted)
    assert (arguments["true_cfg_scale"], arguments["negative_prompt"]) == (3.0, "blurry")
    assert "guidance_scale" not in arguments


def test_cancelling_after_a_step_stops_before_the_next_forward(
    model: LoadedModel, family: str
) -> None:
    def cancel_after_second_step(event: Event) -> None:
        if isinstance(event, Progress) and event.step == 2:
            job.cancel()

    job = make_job(model, Recorder(cancel_after_second_step), num_inference_steps=4, **GUIDED)
    with count_forwards(model) as forwards:
        run_jobs(job)
    assert forwards.count == FORWARDS_OF_TWO_STEPS.get(family, 2)


def test_cancelling_between_the_two_forwards_of_a_step_skips_the_second(
    tiny_models: TinyModels,
) -> None:
    model = tiny_models["qwen-image"]
    job = make_job(model, Recorder(), **GUIDED)
    with count_forwards(model, job.cancel) as forwards:
        run_jobs(job)
    assert forwards.count == 1


def test_job_that_was_cancelled_leaves_the_model_as_it_was(model: LoadedModel) -> None:
    before = draw(model)
    job = make_job(model, Recorder())
    with count_forwards(model, job.cancel):
        run_jobs(job)
    assert draw(model) == before


def test_previews_follow_the_steps_but_not_the_last(model: LoadedModel) -> None:
    events = run_job(model, num_inference_steps=4, preview_interval=2, width=96, height=64)
    kinds = ["Progress", "Progress", "Preview", "Progress", "Progress", "Image"]
    assert [type(event).__name__ for event in events] == kinds
    [preview] = [event for event in events if isinstance(event, Preview)]
    assert (preview.step, preview.width, preview.height) == (2, 96, 64)
    picture = PIL.Image.open(io.BytesIO(preview.data))
    assert (picture.format, picture.size) == ("JPEG", (96, 64))


def test_previews_do_not_change_the_image(model: LoadedModel) -> None:
    assert draw(model, preview_interval=1) == draw(model)
