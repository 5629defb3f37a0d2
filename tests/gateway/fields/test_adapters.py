"""Adapters: each API's fields name adapters of the model, or are refused by their own names."""

from collections.abc import Mapping
from typing import Any

import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import OF_OPENAI, ROUTES, words_of
from tests.gateway.failing_service import READY, FailingService
from tests.gateway.http_call import Answer, post

URL = "https://example.org/pastel.safetensors"
HUB_ID = "owner/outline-lora"


def send_fields(gateway: RunningGateway, route: str, fields: Mapping[str, Any]) -> Answer:
    """Send fields where the route's clients put parameters."""
    path, body = ROUTES[route]
    place = next((key for key in ("parameters", "input") if key in body), None)
    body = {**body, place: {**body[place], **fields}} if place else {**body, **fields}
    body = {"model": READY, **body} if route in OF_OPENAI else body
    return post(gateway.url + path.format(READY), body, Prefer="wait")


@pytest.mark.parametrize(
    ("route", "fields", "adapters"),
    [
        ("fal", {"loras": [{"path": URL, "scale": 0.5}]}, {"pastel": 0.5}),
        ("fal", {"loras": [{"path": URL}, {"path": HUB_ID}]}, {"pastel": None, "outline": None}),
        ("fal queue", {"loras": [{"path": "pastel", "scale": 0}]}, {"pastel": 0}),
        ("fal", {"loras": [{"path": "pastel", "weight_name": None, "force": False}]}, ["pastel"]),
        ("together", {"image_loras": [{"path": HUB_ID, "scale": 0.25}]}, {"outline": 0.25}),
        ("nebius", {"loras": [{"url": URL, "scale": 1}]}, {"pastel": 1}),
        ("replicate", {"lora_weights": URL, "lora_scale": 0.5}, {"pastel": 0.5}),
        ("replicate", {"hf_lora": HUB_ID.upper()}, ["outline"]),
        ("replicate", {"replicate_weights": URL, "lora_weights": ""}, ["pastel"]),
        (
            "replicate",
            {"lora_weights": URL, "extra_lora": HUB_ID, "extra_lora_scale": 0.75},
            {"pastel": None, "outline": 0.75},
        ),
        ("hf-inference", {"adapters": [{"name": "outline", "scale": 0.5}]}, {"outline": 0.5}),
        ("openai", {"adapters": ["outline", "pastel"]}, ["outline", "pastel"]),
        ("fal", {"loras": []}, []),
    ],
)
def test_adapters_reach_the_service_by_its_names(
    route: str,
    fields: Mapping[str, Any],
    adapters: Mapping[str, float | None] | list[str],
    failing_gateway: RunningGateway,
    failing_service: FailingService,
) -> None:
    answer = send_fields(failing_gateway, route, fields)
    assert answer.status in (200, 201)
    assert "x-ignored-parameters" not in answer.headers
    sent = [
        (use.name, use.scale if use.HasField("scale") else None)
        for use in failing_service.requests[-1].adapters
    ]
    expected = adapters if isinstance(adapters, dict) else dict.fromkeys(adapters)
    assert sent == [*expected.items()]


def test_scales_without_an_adapter_are_ignored_and_named(failing_gateway: RunningGateway) -> None:
    fields = {"lora_weights": "", "lora_scale": 1, "extra_lora_scale": 1}
    answer = send_fields(failing_gateway, "replicate", fields)
    assert answer.headers["x-ignored-parameters"] == "lora_scale, extra_lora_scale"


@pytest.mark.parametrize(
    ("route", "fields", "words"),
    [
        (
            "fal",
            {"loras": [{"path": URL}, {"path": "owner/other"}]},
            "loras[1].path: must be one of pastel, outline, not 'owner/other'",
        ),
        (
            "together",
            {"image_loras": [{"path": URL, "scale": 9}]},
            "image_loras[0].scale: must be from 0 to 2, not 9",
        ),
        (
            "replicate",
            {"hf_lora": "owner/other"},
            "hf_lora: must be one of pastel, outline, not 'owner/other'",
        ),
        (
            "replicate",
            {"lora_weights": URL, "extra_lora": HUB_ID, "extra_lora_scale": -1},
            "extra_lora_scale: must be from 0 to 2, not -1",
        ),
        (
            "nebius",
            {"loras": [f"lora-{number}" for number in range(17)]},
            "loras: must be at most 16, not 17",
        ),
        (
            "hf-inference",
            {"adapters": ["ink"]},
            "adapters[0]: must be one of pastel, outline, not 'ink'",
        ),
        ("fal", {"loras": URL}, f"loras: must be a list of adapters, not '{URL}'"),
        ("fal", {"loras": [7]}, "loras[0]: must be a name, or an object with one, not 7"),
        ("fal", {"loras": [{"scale": 1}]}, "loras[0]: must have one of name, path, url"),
        (
            "fal",
            {"loras": [{"path": URL, "weight_name": "a.safetensors"}]},
            "loras[0].weight_name: is not supported beside path",
        ),
        (
            "fal",
            {"loras": [{"path": URL, "scale": "1"}]},
            "loras[0].scale: must be a number, not '1'",
        ),
        (
            "fal",
            {"loras": [{"path": URL}, {"path": "pastel", "scale": 0.5}]},
            "loras[1].path: names 'pastel' a second time",
        ),
        (
            "replicate",
            {"lora_weights": URL, "extra_lora": URL},
            "extra_lora: names 'pastel' a second time",
        ),
        ("replicate", {"lora_weights": 3}, "lora_weights: must be a string, not 3"),
        (
            "replicate",
            {"lora_weights": URL, "hf_lora": HUB_ID},
            "hf_lora: says something else than lora_weights; send one of them",
        ),
    ],
)
def test_others_are_refused_by_the_callers_names(
    route: str, fields: Mapping[str, Any], words: str, gateway: RunningGateway
) -> None:
    answer = send_fields(gateway, route, fields)
    assert answer.status == 422
    assert words_of(route, answer) == words
