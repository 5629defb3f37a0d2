"""Rules for fields: each field of each API is read, has no effect, or is refused."""

import re
import time
from pathlib import Path
from typing import Any

import pytest

from safelight_gateway.dialects import openai
from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.errors import GatewayError
from safelight_gateway.fields.rules import find_ignored, is_empty
from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import OF_OPENAI, ROUTES, words_of
from tests.gateway.failing_service import READY
from tests.gateway.http_call import Answer, post
from tests.gateway.third_party.client_process import INSTALLED

REGISTRY = DialectRegistry(DIALECTS)
ALL_OWN = {name for dialect in DIALECTS for name in dialect.own_fields}

DOCUMENTED = {
    "openai": """background complexity frame_count frame_duration_ms model moderation n
        output_compression output_format partial_images prompt quality response_format
        safety_identifier size stream style svg user""",
    "together": """disable_safety_checker guidance_scale height image_loras image_url model n
        negative_prompt output_format prompt reference_images response_format seed steps width""",
    "nebius": """height loras model negative_prompt num_inference_steps prompt
        response_extension response_format seed width""",
    "fal-ai": """acceleration controlnets embeddings enable_safety_checker expand_prompt format
        guidance_scale image_size image_url ip_adapters loras mask_url negative_prompt
        num_images num_inference_steps output_format prompt safety_checker_version scheduler
        seed strength sync_mode""",
    "replicate": """apply_watermark aspect_ratio control_image disable_safety_checker extra_lora
        extra_lora_scale go_fast guidance guidance_scale height high_noise_frac image
        image_prompt image_prompt_strength input_image lora_scale lora_weights mask megapixels
        negative_prompt num_inference_steps num_outputs output_format output_quality prompt
        prompt_strength prompt_upsampling raw redux_image refine refine_steps
        replicate_weights safety_tolerance scheduler seed steps width
        input version stream webhook webhook_completed webhook_events_filter""",
    "hf-inference": """guidance_scale height inputs negative_prompt num_inference_steps scheduler
        seed target_size width""",
}
"""The fields of the providers' own references."""

GUIDE = Path(__file__).parents[3] / "docs" / "gateway.md"
SEEN = ("hf-inference", "fal", "replicate", "together", "nebius", "openai")


def send_field(gateway: RunningGateway, route: str, name: str, value: Any) -> Answer:
    """Send a field where the route's clients put parameters."""
    path, body = ROUTES[route]
    place = next((key for key in ("parameters", "input") if key in body), None)
    field = {name: value}
    body = {**body, place: {**body[place], **field}} if place else {**body, **field}
    body = {"model": READY, **body} if route in OF_OPENAI else body
    return post(gateway.url + path.format(READY), body, Prefer="wait")


def uses(name: str) -> list[str]:
    """Return what the gateway does with a field."""
    return [
        use
        for use, names in (
            ("own", ALL_OWN),
            ("parameter", REGISTRY.parameter_names),
            ("hint", REGISTRY.hints),
            ("refused", REGISTRY.refusals.keys()),
        )
        if name in names
    ]


@pytest.mark.parametrize("dialect", DOCUMENTED)
def test_every_documented_field_is_decided(dialect: str) -> None:
    undecided = [name for name in DOCUMENTED[dialect].split() if not uses(name)]
    assert undecided == []


def test_no_field_is_decided_twice() -> None:
    names = REGISTRY.parameter_names | REGISTRY.hints | REGISTRY.refusals.keys()
    twice = {name: uses(name) for name in names if len({*uses(name)} - {"own"}) > 1}
    assert twice == {}


@pytest.mark.parametrize(
    ("sdk", "file"),
    [
        ("openai", "openai/types/image_generate_params.py"),
        ("together", "together/types/image_generate_params.py"),
        ("huggingface_hub", "huggingface_hub/inference/_generated/types/text_to_image.py"),
    ],
)
def test_every_field_of_an_installed_sdk_is_decided(sdk: str, file: str) -> None:
    sources = [*INSTALLED.glob(f"python/lib/python3*/site-packages/{file}")]
    if not sources:
        pytest.skip("run scripts/install-gateway-clients first")
    names = _fields_of(sources[0])
    assert len(names) >= 7
    assert [name for name in names if not uses(name)] == []


def _fields_of(source: Path) -> set[str]:
    """Return the fields of the requests in a module; other classes are parts of them."""
    others = {"effort", "reasoning", "path", "scale", "parameters", "image", "extra"}
    text = source.read_text()
    return {*re.findall(r"^    ([a-z][a-z0-9_]*): ", text, re.MULTILINE)} - others


def test_every_field_is_in_the_docs() -> None:
    names = {
        *REGISTRY.hints,
        *REGISTRY.refusals,
        *ALL_OWN,
        *(name for dialect in DIALECTS for name in dialect.parameter_aliases),
    }
    documented = {*re.findall(r"`(\w+)`", GUIDE.read_text())}
    assert names - documented == set()


@pytest.mark.parametrize("route", SEEN)
def test_refused_fields_are_422_in_the_words_of_the_dialect(
    route: str, failing_gateway: RunningGateway
) -> None:
    own = openai.OWN_FIELDS if route in OF_OPENAI else ()
    for name, refusal in REGISTRY.refusals.items():
        if name in own:
            continue
        answer = send_field(failing_gateway, route, name, 0.5)
        assert answer.status == 422, name
        if route.startswith("fal"):
            [problem] = answer.json["detail"]
            assert (problem["loc"], problem["msg"]) == (["body", name], refusal.reason)
        else:
            assert words_of(route, answer) == f"{name}: {refusal.reason}"


@pytest.mark.parametrize("route", SEEN)
def test_hints_are_ignored_and_named(route: str, failing_gateway: RunningGateway) -> None:
    for name in REGISTRY.hints:
        answer = send_field(failing_gateway, route, name, "anything")
        assert answer.status in (200, 201)
        assert answer.headers["x-ignored-parameters"] == name


@pytest.mark.parametrize("route", SEEN)
def test_unknown_field_is_refused_with_the_nearest_name(
    route: str, failing_gateway: RunningGateway
) -> None:
    answer = send_field(failing_gateway, route, "guidence_scale", 3)
    assert answer.status == 422
    assert "guidence_scale" in answer.headers["x-error-message"]
    assert "did you mean guidance_scale?" in answer.headers["x-error-message"]


def test_field_of_another_dialects_handler_is_refused(failing_gateway: RunningGateway) -> None:
    for route, name in (("fal", "stream"), ("openai", "sync_mode"), ("models", "response_format")):
        assert send_field(failing_gateway, route, name, True).status == 422
        assert send_field(failing_gateway, route, name, False).status == 200


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_empty_values_ask_for_nothing(value: object) -> None:
    assert is_empty(value)
    assert find_ignored({"image": value, "quality": value, "no_such_field": value}, REGISTRY) == ()


def test_harmless_values_ask_for_nothing() -> None:
    for name, refusal in REGISTRY.refusals.items():
        for value in refusal.harmless:
            assert find_ignored({name: value}, REGISTRY) == ()


def test_zero_and_one_are_values() -> None:
    for value in (0, 1, 0.0, True):
        with pytest.raises(GatewayError, match=r"strength: is not supported"):
            find_ignored({"strength": value}, REGISTRY)


def test_all_refused_fields_are_named_at_once() -> None:
    with pytest.raises(GatewayError) as raised:
        find_ignored({"image": "x", "mask": "x", "prompt": "x"}, REGISTRY)
    assert [each.field for each in raised.value.violations] == ["image", "mask"]


def test_long_names_and_many_of_them_are_bounded() -> None:
    with pytest.raises(GatewayError) as raised:
        find_ignored({f"{number}{'é' * 9_000}": 1 for number in range(100)}, REGISTRY)
    assert len(raised.value.message) < 5_000


def test_a_body_of_many_unknown_fields_takes_no_time() -> None:
    fields = {f"prompt_size_{number}": 1 for number in range(20_000)}
    begin_s = time.process_time()
    with pytest.raises(GatewayError) as raised:
        find_ignored(fields, REGISTRY)
    assert time.process_time() - begin_s < 5
    assert len(raised.value.violations) == 32
