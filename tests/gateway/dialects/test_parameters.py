"""Parameters: the values that every dialect takes and refuses."""

import base64
import io
from typing import Any

import PIL.Image
import pytest

from support.running_gateway import RunningGateway
from tests.gateway.failing_service import READY, FailingService
from tests.gateway.http_call import post


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", "wide"),
        ("seed", 1.5),
        ("guidance_scale", True),
        ("negative_prompt", 3),
        ("image_size", "huge"),
        ("size", "1x"),
        ("output_format", "gif"),
        ("seed", 10**30),
        ("guidance_scale", 10**400),
        ("width", float("inf")),
        ("num_inference_steps", float("nan")),
        ("prompt", "\ud800"),
        ("n", 0.5),
    ],
)
def test_values_of_the_wrong_type_are_422(
    name: str, value: object, failing_gateway: RunningGateway
) -> None:
    answer = post(f"{failing_gateway.url}/fal-ai/{READY}", {"prompt": "x", name: value})
    assert answer.status == 422
    assert answer.json["detail"]


@pytest.mark.parametrize("size", [{"image_size": {"width": 96, "height": 64}}, {"size": "96x64"}])
def test_size_is_read_in_every_form(size: dict[str, Any], gateway: RunningGateway) -> None:
    body = {"prompt": "x", "steps": 1, "guidance": 0.0, "seed": -1, "size": "auto", **size}
    answer = post(f"{gateway.url}/v1/images/generations", body)
    [image] = answer.json["data"]
    assert PIL.Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))).size == (96, 64)


def test_what_has_no_effect_is_dropped_and_named(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    parameters = {"negative_prompt": "blurry", "seed": 3, "quality": "hd"}
    body = {"inputs": "x", "parameters": parameters}
    answer = post(f"{failing_gateway.url}/models/{READY}", body)
    assert answer.status == 200
    assert answer.headers["x-ignored-parameters"] == "negative_prompt, quality"
    sent = failing_service.requests[-1].parameters
    assert (sent.seed, sent.HasField("negative_prompt")) == (3, False)
