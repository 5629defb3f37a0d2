import math
from dataclasses import asdict, replace
from typing import Any
from urllib.parse import quote

import pytest

from safelight_service.core.errors import InvalidRequestError
from safelight_service.core.model import AdapterInfo, Capabilities, Defaults, Limits, SchedulerInfo
from safelight_service.core.request import (
    AdapterUse,
    GenerationRequest,
    OutputOptions,
    Parameters,
    PreviewOptions,
    ResolvedAdapter,
    ResolvedOutput,
    ResolvedParameters,
    ResolvedPreview,
    ResolvedRequest,
)
from safelight_service.core.validation import MAX_SEED, resolve

CAPABILITIES = Capabilities(
    pipeline_class="StableDiffusionPipeline",
    supported_parameters=(
        "guidance_scale",
        "negative_prompt",
        "num_inference_steps",
        "width",
        "height",
        "scheduler",
        "seed",
    ),
    defaults=Defaults(
        guidance_scale=7.5,
        num_inference_steps=20,
        width=512,
        height=256,
        scheduler="PNDMScheduler",
    ),
    schedulers=(
        SchedulerInfo("PNDMScheduler", ("pndm",)),
        SchedulerInfo("LCMScheduler", ("lcm",), max_step_count=50),
    ),
    limits=Limits(
        min_side_px=64,
        max_side_px=1024,
        size_multiple_px=8,
        max_pixel_count=1024 * 512,
        max_step_count=100,
        max_guidance_scale=30.0,
        max_image_count=4,
        max_prompt_token_count=10,
        max_prompt_character_count=100,
    ),
    has_previews=True,
)


def count_words(prompt: str) -> int:
    return len(prompt.split())


def resolve_with(capabilities: Capabilities = CAPABILITIES, **fields: Any) -> ResolvedRequest:
    return resolve(GenerationRequest(**{"inputs": "a cat", **fields}), capabilities, count_words)


def violations_of(capabilities: Capabilities = CAPABILITIES, **fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as refusal:
        resolve_with(capabilities, **fields)
    return {violation.field: violation.description for violation in refusal.value.violations}


def violations_of_parameters(
    capabilities: Capabilities = CAPABILITIES, **parameters: Any
) -> dict[str, str]:
    return violations_of(capabilities, parameters=Parameters(**parameters))


def test_unset_fields_take_the_defaults() -> None:
    resolved = resolve_with(parameters=Parameters(seed=1))
    assert resolved == ResolvedRequest(
        inputs="a cat",
        parameters=ResolvedParameters(
            guidance_scale=7.5,
            negative_prompt=None,
            num_inference_steps=20,
            width=512,
            height=256,
            scheduler="PNDMScheduler",
            seed=1,
        ),
        image_count=1,
        output=ResolvedOutput("image/png", None),
        preview=None,
    )


def test_set_fields_are_kept_as_they_are() -> None:
    parameters = Parameters(
        guidance_scale=0.0,
        negative_prompt=None,
        num_inference_steps=1,
        width=64,
        height=1024,
        scheduler="lcm",
        seed=0,
    )
    resolved = resolve_with(parameters=parameters, image_count=4)
    assert asdict(resolved.parameters) == asdict(parameters)
    assert resolved.image_count == 4


def test_all_violations_are_reported_at_once() -> None:
    violations = violations_of(
        inputs=" ",
        generation_id="with space",
        image_count=0,
        parameters=Parameters(
            guidance_scale=-1.0, num_inference_steps=0, width=63, height=2000, scheduler="magic"
        ),
        output=OutputOptions("image/gif"),
        preview=PreviewOptions(-1, "image/png", 8),
    )
    assert violations.keys() == {
        "inputs",
        "generation_id",
        "image_count",
        "parameters.guidance_scale",
        "parameters.num_inference_steps",
        "parameters.width",
        "parameters.height",
        "parameters.scheduler",
        "output.mime_type",
        "preview.interval_steps",
        "preview.mime_type",
        "preview.max_side_px",
    }


@pytest.mark.parametrize("inputs", ["", " ", "\n\t"])
def test_empty_prompt_is_refused(inputs: str) -> None:
    assert violations_of(inputs=inputs) == {"inputs": "must not be empty"}


def test_prompt_of_too_many_characters_is_refused_before_it_is_tokenised() -> None:
    def refuse_to_count(prompt: str) -> int:
        raise AssertionError(prompt)

    with pytest.raises(InvalidRequestError) as refusal:
        resolve(GenerationRequest("x" * 101), CAPABILITIES, refuse_to_count)
    assert str(refusal.value) == "inputs: must have at most 100 characters, not 101"


def test_prompt_of_too_many_tokens_is_refused() -> None:
    assert resolve_with(inputs="a " * 10).inputs == "a " * 10
    assert violations_of(inputs="a " * 11) == {
        "inputs": "must have at most 10 tokens of this model, not 11"
    }


def test_prompt_is_not_counted_where_the_model_reads_all_of_it() -> None:
    limits = replace(CAPABILITIES.limits, max_prompt_token_count=None)
    resolve_with(replace(CAPABILITIES, limits=limits), inputs="a " * 50)


def test_negative_prompt_obeys_the_rules_of_the_prompt() -> None:
    assert violations_of_parameters(negative_prompt="a " * 11) == {
        "parameters.negative_prompt": "must have at most 10 tokens of this model, not 11"
    }


def test_empty_negative_prompt_is_none() -> None:
    assert (
        resolve_with(parameters=Parameters(negative_prompt="")).parameters.negative_prompt is None
    )


@pytest.mark.parametrize("guidance_scale", [0.0, 1.0])
def test_negative_prompt_without_guidance_is_refused(guidance_scale: float) -> None:
    violations = violations_of_parameters(negative_prompt="dog", guidance_scale=guidance_scale)
    assert violations == {
        "parameters.negative_prompt": (
            "has no effect unless guidance_scale is above 1; raise it or leave this out"
        )
    }


def test_negative_prompt_is_refused_where_the_default_turns_guidance_off() -> None:
    defaults = replace(CAPABILITIES.defaults, guidance_scale=1.0)
    capabilities = replace(CAPABILITIES, defaults=defaults)
    assert list(violations_of_parameters(capabilities, negative_prompt="dog")) == [
        "parameters.negative_prompt"
    ]


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_guidance_within_its_bounds_is_kept(scale: float) -> None:
    resolved = resolve_with(parameters=Parameters(guidance_scale=scale))
    assert resolved.parameters.guidance_scale == scale


@pytest.mark.parametrize("scale", [-0.1, 30.1, math.nan, math.inf, -math.inf])
def test_guidance_outside_its_bounds_is_refused(scale: float) -> None:
    assert violations_of_parameters(guidance_scale=scale) == {
        "parameters.guidance_scale": f"must be from 0 to 30, not {scale}"
    }


@pytest.mark.parametrize("steps", [-1, 0, 101])
def test_step_count_outside_its_bounds_is_refused(steps: int) -> None:
    assert violations_of_parameters(num_inference_steps=steps) == {
        "parameters.num_inference_steps": f"must be from 1 to 100, not {steps}"
    }


@pytest.mark.parametrize("scheduler", ["lcm", "LCMScheduler"])
def test_step_limit_of_the_scheduler_holds(scheduler: str) -> None:
    assert violations_of_parameters(num_inference_steps=51, scheduler=scheduler) == {
        "parameters.num_inference_steps": "must be from 1 to 50, not 51"
    }


@pytest.mark.parametrize("side", [-8, 0, 56, 100, 1032])
@pytest.mark.parametrize("name", ["width", "height"])
def test_side_that_the_model_cannot_make_is_refused(name: str, side: int) -> None:
    parameters: dict[str, Any] = {name: side}
    assert violations_of(parameters=Parameters(**parameters)) == {
        f"parameters.{name}": f"must be a multiple of 8 between 64 and 1024, not {side}"
    }


@pytest.mark.parametrize(
    ("width", "height", "field"),
    [(1024, 1024, "parameters.width"), (None, 1032 - 8, None), (1024, None, None)],
)
def test_too_many_pixels_are_refused(
    width: int | None, height: int | None, field: str | None
) -> None:
    parameters = Parameters(width=width, height=height)
    if field is None:
        resolve_with(parameters=parameters)
    else:
        assert violations_of(parameters=parameters) == {
            field: "width times height must be at most 524288, not 1024 x 1024 = 1048576"
        }


def test_unknown_scheduler_is_refused_with_all_names() -> None:
    assert violations_of_parameters(scheduler="magic") == {
        "parameters.scheduler": (
            "must be one of pndm, lcm, PNDMScheduler, LCMScheduler, not 'magic'"
        )
    }


@pytest.mark.parametrize("name", ["pndm", "lcm", "PNDMScheduler", "LCMScheduler"])
def test_scheduler_is_known_by_class_and_alias(name: str) -> None:
    assert resolve_with(parameters=Parameters(scheduler=name)).parameters.scheduler == name


@pytest.mark.parametrize("seed", [0, 1, MAX_SEED])
def test_seed_within_its_bounds_is_kept(seed: int) -> None:
    assert resolve_with(parameters=Parameters(seed=seed)).parameters.seed == seed


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seed_outside_its_bounds_is_refused(seed: int) -> None:
    assert violations_of_parameters(seed=seed) == {
        "parameters.seed": f"must be from 0 to {MAX_SEED}, not {seed}"
    }


def test_seed_of_the_last_image_obeys_the_bound_too() -> None:
    resolve_with(parameters=Parameters(seed=MAX_SEED - 3), image_count=4)
    violations = violations_of(parameters=Parameters(seed=MAX_SEED - 2), image_count=4)
    assert violations == {
        "parameters.seed": f"must be from 0 to {MAX_SEED - 3}, not {MAX_SEED - 2}"
    }


def test_unset_seed_is_the_open_seed_of_the_request() -> None:
    assert resolve_with(open_seed=0).parameters.seed == 0
    assert resolve_with(open_seed=9, parameters=Parameters(seed=1)).parameters.seed == 1


def test_unset_seed_is_drawn_again_each_time() -> None:
    seeds = {resolve_with().parameters.seed for _ in range(8)}
    assert len(seeds) > 1
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("count", [-1, 0, 5])
def test_image_count_outside_its_bounds_is_refused(count: int) -> None:
    assert violations_of(image_count=count) == {"image_count": f"must be from 1 to 4, not {count}"}


@pytest.mark.parametrize("generation_id", ["a", "A.b-c_d:0", "x" * 128])
def test_generation_id_of_the_allowed_characters_is_taken(generation_id: str) -> None:
    resolve_with(generation_id=generation_id)


@pytest.mark.parametrize("generation_id", ["a b", "ä", "a/b", "a\n", "x" * 129])
def test_generation_id_of_other_characters_is_refused(generation_id: str) -> None:
    assert violations_of(generation_id=generation_id) == {
        "generation_id": "must be 1 to 128 letters, digits and -_.:"
    }


@pytest.mark.parametrize(
    ("name", "value"), [("guidance_scale", 3.0), ("negative_prompt", "dog"), ("seed", 0)]
)
def test_parameter_that_is_not_supported_is_refused_with_those_that_are(
    name: str, value: object
) -> None:
    defaults = replace(CAPABILITIES.defaults, guidance_scale=None)
    capabilities = replace(
        CAPABILITIES, supported_parameters=("width", "height"), defaults=defaults
    )
    assert violations_of_parameters(capabilities, **{name: value}) == {
        f"parameters.{name}": "is not supported by this model, which takes: width, height"
    }


@pytest.mark.parametrize("mime_type", ["image/jpeg", "image/webp"])
def test_lossy_formats_have_a_quality(mime_type: str) -> None:
    assert resolve_with(output=OutputOptions(mime_type)).output == ResolvedOutput(mime_type, 95)
    chosen = resolve_with(output=OutputOptions(mime_type, 1)).output
    assert chosen == ResolvedOutput(mime_type, 1)


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_outside_its_bounds_is_refused(quality: int) -> None:
    assert violations_of(output=OutputOptions("image/jpeg", quality)) == {
        "output.quality": f"must be from 1 to 100, not {quality}"
    }


@pytest.mark.parametrize("mime_type", ["", "image/png"])
def test_quality_of_png_is_refused(mime_type: str) -> None:
    assert violations_of(output=OutputOptions(mime_type, 90)) == {
        "output.quality": "applies to image/jpeg and image/webp only; PNG is lossless"
    }


def test_unknown_output_format_is_refused_with_those_that_exist() -> None:
    assert violations_of(output=OutputOptions("image/gif")) == {
        "output.mime_type": "must be one of image/png, image/jpeg, image/webp, not 'image/gif'"
    }


def test_previews_default_to_small_jpegs() -> None:
    preview = resolve_with(preview=PreviewOptions(2)).preview
    assert preview == ResolvedPreview(2, "image/jpeg", 256)


def test_previews_are_not_larger_than_the_image_by_default() -> None:
    parameters = Parameters(width=64, height=128)
    preview = resolve_with(parameters=parameters, preview=PreviewOptions(1)).preview
    assert preview == ResolvedPreview(1, "image/jpeg", 128)


def test_preview_options_are_kept() -> None:
    preview = resolve_with(preview=PreviewOptions(3, "image/webp", 512)).preview
    assert preview == ResolvedPreview(3, "image/webp", 512)


def test_preview_options_are_checked_even_without_previews() -> None:
    assert violations_of(preview=PreviewOptions(0, "image/png", 15)) == {
        "preview.mime_type": "must be one of image/jpeg, image/webp, not 'image/png'",
        "preview.max_side_px": "must be from 16 to 512, not 15",
    }


def test_negative_preview_interval_is_refused() -> None:
    assert violations_of(preview=PreviewOptions(-1)) == {
        "preview.interval_steps": "must be 0 or more, not -1"
    }


def test_previews_of_a_model_that_gives_none_are_refused() -> None:
    capabilities = replace(CAPABILITIES, has_previews=False)
    assert resolve_with(capabilities).preview is None
    assert violations_of(capabilities, preview=PreviewOptions(1)) == {
        "preview.interval_steps": "must be 0: this model has no previews"
    }


@pytest.mark.parametrize(("linger_s", "is_allowed"), [(0.0, True), (30.0, True), (30.5, False)])
def test_the_service_may_allow_less_lingering(linger_s: float, is_allowed: bool) -> None:
    request = GenerationRequest("a cat", linger_s=linger_s)
    if is_allowed:
        assert resolve(request, CAPABILITIES, count_words, 30.0)
        return
    with pytest.raises(InvalidRequestError, match=r"linger: must be from 0 to 30 s, not 30\.5 s"):
        resolve(request, CAPABILITIES, count_words, 30.0)


WITH_ADAPTERS = replace(
    CAPABILITIES,
    adapters=(AdapterInfo("ink", "", 0.8, 0.0, 1.5), AdapterInfo("oil", "", 1.0, -1.0, 1.0)),
)


def test_adapters_keep_their_order_and_take_their_default_scales() -> None:
    uses = (AdapterUse("oil"), AdapterUse("ink", 0.0))
    assert resolve_with(WITH_ADAPTERS, adapters=uses).adapters == (
        ResolvedAdapter("oil", 1.0),
        ResolvedAdapter("ink", 0.0),
    )


@pytest.mark.parametrize(
    ("use", "field", "description"),
    [
        (AdapterUse("oil", 1.1), "scale", "must be from -1 to 1, not 1.1"),
        (AdapterUse("oil", math.nan), "scale", "must be from -1 to 1, not nan"),
        (AdapterUse("ink"), "name", "must not be that of an earlier adapter"),
        (AdapterUse("tar"), "name", "must be one of ink, oil, not 'tar'"),
    ],
)
def test_an_adapter_that_breaks_a_rule_is_refused_by_path(
    use: AdapterUse, field: str, description: str
) -> None:
    uses = (AdapterUse("ink"), use)
    assert violations_of(WITH_ADAPTERS, adapters=uses) == {f"adapters[1].{field}": description}


def test_all_bad_adapters_are_named_and_the_good_ones_listed_once() -> None:
    uses = (AdapterUse("ink", 9.0), AdapterUse("tar"), AdapterUse("ash"), AdapterUse("ink"))
    assert violations_of(WITH_ADAPTERS, adapters=uses) == {
        "adapters[0].scale": "must be from 0 to 1.5, not 9",
        "adapters[1].name": "must be one of ink, oil, not 'tar'",
        "adapters[2].name": "must be one of the model's adapters",
        "adapters[3].name": "must not be that of an earlier adapter",
    }


def test_however_many_adapters_are_bad_their_refusal_can_be_received() -> None:
    uses = tuple(AdapterUse(f"{index}" + "\N{ARTIST PALETTE}" * 100) for index in range(16))
    refused = violations_of(WITH_ADAPTERS, adapters=uses)
    assert len(refused) == 16
    # Once percent-encoded in the message, and once in the details; 8 KiB are allowed.
    text = "; ".join(f"{field}: {description}" for field, description in refused.items())
    assert len(quote(text)) + len(text.encode()) < 4096


def test_adapters_of_a_model_without_any_are_refused() -> None:
    assert violations_of(adapters=(AdapterUse("ink"),)) == {
        "adapters": "must be empty, since this model has none"
    }


def test_too_many_adapters_are_refused_in_one_violation() -> None:
    uses = (AdapterUse("ink"),) * 17
    assert violations_of(WITH_ADAPTERS, adapters=uses) == {"adapters": "must be at most 16, not 17"}
