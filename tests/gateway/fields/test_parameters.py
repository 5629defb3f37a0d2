"""Parameters: the values that every dialect takes and refuses."""

import base64
import io
from collections.abc import Mapping
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


@pytest.mark.parametrize(
    ("path", "body", "wrong"),
    [
        (
            "/v1/images/generations",
            {"prompt": "x", "n": 99, "size": "97x64", "steps": 0, "cfg_scale": 99.0},
            {"n", "size", "steps", "cfg_scale"},
        ),
        ("/fal-ai/shapes", {"image_size": {"width": 97, "height": 64}}, {"image_size", "prompt"}),
        ("/fal-ai/shapes", {"prompt": "x", "num_images": 0}, {"num_images"}),
        ("/fal-ai/shapes", {"prompt": "x", "image_size": "square_hd"}, {"image_size"}),
        ("/fal-ai/shapes", {"prompt": "x", "scheduler": "Restart"}, {"scheduler"}),
        ("/fal-ai/shapes", {"prompt": "x", "sampler_name": "Restart"}, {"sampler_name"}),
        (
            "/replicate/v1/models/safelight/shapes/predictions",
            {"input": {"prompt": "x", "num_outputs": 99, "guidance": -1.0}},
            {"num_outputs", "guidance"},
        ),
        ("/models/shapes", {"inputs": ""}, {"inputs"}),
        ("/models/shapes", {"parameters": {"seed": -5}}, {"inputs", "seed"}),
        (
            "/models/shapes",
            {"inputs": "x", "parameters": {"width": 128, "aspect_ratio": "9:1"}},
            {"aspect_ratio"},
        ),
        (
            "/fal-ai/shapes",
            {"prompt": "x", "format": "jpg", "output_quality": 0},
            {"output_quality"},
        ),
    ],
)
def test_errors_of_the_service_name_the_callers_fields(
    path: str, body: Mapping[str, Any], wrong: set[str], gateway: RunningGateway
) -> None:
    answer = post(gateway.url + path, body, Prefer="wait")
    assert answer.status == 422
    message = answer.headers["x-error-message"]
    assert {part.partition(":")[0] for part in message.split("; ")} == wrong


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"width": 0}, "width"),
        ({"height": 0, "width": 64}, "height"),
        ({"size": "64x64", "width": 0}, "width"),
        ({"size": {"width": 64, "height": 64, "depth": 2}}, "size"),
        ({"model": 0}, "model"),
        ({"model": ["shapes"]}, "model"),
        ({"response_format": 0}, "response_format"),
        ({"stream": 0}, "stream"),
        ({"partial_images": "1"}, "partial_images"),
    ],
)
def test_zero_and_other_types_are_not_taken_for_absent(
    fields: Mapping[str, Any], wrong: str, gateway: RunningGateway
) -> None:
    answer = post(f"{gateway.url}/v1/images/generations", {"prompt": "x", **fields})
    assert answer.status == 422
    assert answer.json["error"]["param"] == wrong


def test_a_quality_without_effect_is_named(failing_gateway: RunningGateway) -> None:
    body = {"prompt": "x", "model": READY, "output_compression": 50}
    url = f"{failing_gateway.url}/v1/images/generations"
    assert post(url, body).headers["x-ignored-parameters"] == "output_compression"
    assert "x-ignored-parameters" not in post(url, {**body, "output_format": "webp"}).headers


def test_scheduler_is_refused_with_the_allowed_names(gateway: RunningGateway) -> None:
    answer = post(f"{gateway.url}/fal-ai/shapes", {"prompt": "x", "scheduler": "DPM2 a"})
    message = answer.json["message"]
    assert message.startswith("scheduler: must be one of ")
    assert "dpm++_2m_karras" in message
    assert message.endswith("not 'DPM2 a'")


@pytest.mark.parametrize(
    ("body", "size"),
    [
        ({"aspect_ratio": "16:9", "megapixels": "0.01"}, (136, 80)),
        ({"aspect_ratio": "3:2", "height": 64}, (96, 64)),
        ({"target_size": {"width": 96, "height": 64}}, (96, 64)),
    ],
)
def test_image_has_the_shape_that_was_asked_for(
    body: dict[str, Any], size: tuple[int, int], gateway: RunningGateway
) -> None:
    parameters = {**body, "num_inference_steps": 1, "sampler_name": "dpmpp_2m"}
    answer = post(f"{gateway.url}/models/shapes", {"inputs": "x", "parameters": parameters})
    assert answer.image.size == size
    # The file says what it was made with.
    assert "dpm++_2m" in answer.image.info["parameters"]


def test_negative_prompt_without_guidance_is_dropped_and_named(gateway: RunningGateway) -> None:
    parameters = {"width": 96, "height": 64, "steps": 1, "seed": 7, "guidance_scale": 1.0}
    url = f"{gateway.url}/models/shapes"
    plain = post(url, {"inputs": "x", "parameters": parameters})
    parameters["negative_prompt"] = "blurry"  # type: ignore[assignment]
    answer = post(url, {"inputs": "x", "parameters": parameters})
    assert (answer.status, answer.headers["x-ignored-parameters"]) == (200, "negative_prompt")
    assert answer.body == plain.body


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 2}, "n: must be at most 1, since the answer holds no more images"),
        ({"model": "other"}, "model: must be the model in the path or absent, not 'other'"),
        ({"steps": 3, "num_inference_steps": 4}, "steps: says something else than num_inf"),
        ({"scheduler": "beta", "sampler_name": "euler"}, "scheduler: must be normal or karras"),
        ({"image": "https://example.org/a.png"}, "image: is not supported"),
    ],
)
def test_parameters_that_cannot_be_honoured_are_refused(
    fields: dict[str, Any], message: str, failing_gateway: RunningGateway
) -> None:
    url = f"{failing_gateway.url}/models/{READY}"
    for body in ({"inputs": "x", "parameters": fields}, {"inputs": "x", **fields}):
        answer = post(url, body)
        assert answer.status == 422
        assert answer.json["error"].startswith(message)


def test_unknown_option_is_refused(failing_gateway: RunningGateway) -> None:
    url = f"{failing_gateway.url}/models/{READY}"
    assert post(url, {"inputs": "x", "options": {"use_gpu": True}}).status == 200
    answer = post(url, {"inputs": "x", "options": {"dont_load_model": True}})
    assert (answer.status, answer.json["error"].partition(":")[0]) == (
        422,
        "options.dont_load_model",
    )
