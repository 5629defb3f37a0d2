from pathlib import Path
from typing import Any

import pytest
from diffusers import (
    DDPMPipeline,
    DDPMScheduler,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FluxImg2ImgPipeline,
    StableDiffusionImg2ImgPipeline,
    UNet2DModel,
)

from safelight_service.core.errors import InvalidRequestError
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.pipeline.adapter import UnsupportedPipelineError
from safelight_service.settings import DefaultSettings, LimitSettings, ModelSettings
from support.engine.job_runs import draw, run_job
from support.engine.tiny_models import TinyModels, reload
from support.pipelines.families import FAMILIES, make_pipeline

LONGEST_PROMPTS = {
    "sd15": 75,  # start and end
    "lcm": 75,
    "sdxl": 75,
    "sd3": 254,  # T5 reads more than CLIP: a space and the end
    "flux-dev": 510,
    "flux-schnell": 510,
    "pixart-sigma": 298,
    "flux2-dev": 339,  # its instruction comes before the prompt
    "flux2-klein": 498,  # an empty thought follows what Z-Image's template adds
    "chroma": 510,
    "sana": 298,  # the two tokens that the pipeline keeps back
    "lumina2": 91,  # its instruction comes before the prompt
    "aura-flow": 254,
    "cogview4": 1022,  # two tokens of the start
    "hidream": 126,  # T5 and CLIP read one character less than Llama
    "hunyuan-dit": 254,  # T5 reads more than BERT
    "qwen-image": 507,  # five tokens of its template follow the prompt
    "z-image": 504,  # eight tokens of its template surround the prompt
}
"""Maximum characters of a prompt, one token each, besides the pipeline's own tokens."""


def refusal_of(tiny_models: TinyModels, family: str, **request: Any) -> str:
    with pytest.raises(InvalidRequestError) as refusal:
        run_job(tiny_models[family], **request)
    return str(refusal.value)


def test_unconditional_pipeline_is_refused(tmp_path: Path) -> None:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(4, 4),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        attention_head_dim=2,
        norm_num_groups=2,
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path)
    with pytest.raises(
        UnsupportedPipelineError, match="DDPMPipeline does not take prompt, height, width"
    ):
        load_model(ModelSettings(name="tiny", source=str(tmp_path), device="cpu"))


def test_a_scheduler_that_cannot_start_the_pipeline_is_refused() -> None:
    """Diffusers makes such a pipeline, which fails on every prompt."""
    pipeline: Any = make_pipeline("sd15")
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(
        UnsupportedPipelineError,
        match=r"scheduler: StableDiffusionPipeline does not work with a FlowMatchEuler.*, which is "
        r"for flow matching; set components.scheduler",
    ):
        reload(pipeline)


@pytest.mark.parametrize(
    ("family", "pipeline_class", "reason"),
    [
        ("sd15", StableDiffusionImg2ImgPipeline, "does not take height, width"),
        ("flux-dev", FluxImg2ImgPipeline, "not for text to image alone: it takes image, strength"),
    ],
)
def test_pipeline_that_changes_a_picture_is_refused(
    tmp_path: Path, family: str, pipeline_class: type[DiffusionPipeline], reason: str
) -> None:
    components = make_pipeline(family).components
    if family == "sd15":
        components["requires_safety_checker"] = False
    pipeline_class(**components).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedPipelineError, match=reason):
        load_model(ModelSettings(name="tiny", source=str(tmp_path), device="cpu"))


@pytest.mark.parametrize(
    ("defaults", "limits", "reason"),
    [
        (
            DefaultSettings(width=100),
            LimitSettings(),
            "default width must be .* multiple of 8 .*, not 100;",
        ),
        (
            DefaultSettings(),
            LimitSettings(max_side_px=256),
            "default width must be .* and 256, not 512;",
        ),
        (
            DefaultSettings(),
            LimitSettings(max_pixel_count=64),
            "times height must be at most 64, not 262144;",
        ),
        (
            DefaultSettings(num_inference_steps=200),
            LimitSettings(),
            "num_inference_steps must be .*, not 200;",
        ),
        (
            DefaultSettings(guidance_scale=60),
            LimitSettings(),
            "default guidance_scale must be .*, not 60.0;",
        ),
        (
            DefaultSettings(scheduler="magic"),
            LimitSettings(),
            "default scheduler must be one of .*, not 'magic'",
        ),
    ],
)
def test_defaults_that_no_request_could_take_are_refused(
    tiny_models: TinyModels, defaults: DefaultSettings, limits: LimitSettings, reason: str
) -> None:
    settings = tiny_models.settings("sd15").model_copy(
        update={"defaults": defaults, "limits": limits}
    )
    with pytest.raises(UnsupportedPipelineError, match=reason):
        load_model(settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_size_that_the_family_cannot_make_is_refused_with_the_rule(
    tiny_models: TinyModels, family: str
) -> None:
    limits = tiny_models[family].capabilities.limits
    multiple, most = limits.size_multiple_px, limits.max_side_px
    width = 64 + multiple // 2
    assert refusal_of(tiny_models, family, width=width) == (
        f"parameters.width: must be a multiple of {multiple} between 64 and {most}, not {width}"
    )


@pytest.mark.parametrize("family", ["sd3", "aura-flow"])
def test_side_beyond_the_known_positions_is_refused(tiny_models: TinyModels, family: str) -> None:
    assert refusal_of(tiny_models, family, width=1552) == (
        "parameters.width: must be a multiple of 16 between 64 and 1536, not 1552"
    )


def test_more_patches_than_the_denoiser_has_room_for_are_refused(tiny_models: TinyModels) -> None:
    assert refusal_of(tiny_models, "hidream", width=512, height=256) == (
        "parameters.width: width times height must be at most 65536, not 512 x 256 = 131072"
    )


def test_distilled_pipeline_supports_no_guidance(tmp_path: Path) -> None:
    pipeline = make_pipeline("flux2-klein")
    pipeline.register_to_config(is_distilled=True)
    pipeline.save_pretrained(tmp_path)
    model = load_model(ModelSettings(name="tiny", source=str(tmp_path), device="cpu"))
    assert "guidance_scale" not in model.capabilities.supported_parameters
    assert model.capabilities.defaults.guidance_scale is None


@pytest.mark.parametrize("family", FAMILIES)
def test_prompt_is_refused_from_the_first_token_that_is_not_read(
    tiny_models: TinyModels, family: str
) -> None:
    model = tiny_models[family]
    longest, most = LONGEST_PROMPTS[family], model.capabilities.limits.max_prompt_token_count
    assert model.adapter.count_tokens("x" * longest) == most
    assert refusal_of(tiny_models, family, inputs="x" * (longest + 1)) == (
        f"inputs: must have at most {most} tokens of this model, not {most + 1}"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_last_token_of_the_longest_prompt_is_read(tiny_models: TinyModels, family: str) -> None:
    model = tiny_models[family]
    most = model.capabilities.limits.max_prompt_token_count
    assert most is not None
    spare = most - model.adapter.count_tokens("x")
    prompt = "x" * (spare + 1)
    assert model.adapter.count_tokens(prompt) == most
    assert draw(model, inputs=prompt[:-1] + "y") != draw(model, inputs=prompt)
