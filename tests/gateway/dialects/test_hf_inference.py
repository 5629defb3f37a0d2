"""hf-inference: bytes of an image for a body with `inputs`."""

import PIL.Image
import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import INPUTS
from tests.gateway.failing_service import LOADING, READY, FailingService
from tests.gateway.http_call import post


@pytest.mark.parametrize(
    ("accept", "mime_type"),
    [
        ("*/*", "image/png"),
        ("image/jpeg", "image/jpeg"),
        ("text/html, image/webp;q=0.9, */*", "image/webp"),
    ],
)
def test_accept_decides_the_type_of_bytes(
    accept: str, mime_type: str, gateway: RunningGateway
) -> None:
    answer = post(f"{gateway.url}/models/shapes", INPUTS, Accept=accept)
    assert answer.headers["content-type"] == mime_type
    assert PIL.Image.MIME[answer.image.format or ""] == mime_type
    assert answer.image.size == (96, 64)
    assert 0 < float(answer.headers["x-compute-time"]) < 60
    assert answer.headers["x-compute-type"] == "cpu"
    assert answer.headers["x-compute-characters"] == str(len("a red circle"))


def test_options_of_the_body_are_passed_on(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    body = {**INPUTS, "options": {"use_cache": False, "wait_for_model": True}}
    answer = post(f"{failing_gateway.url}/models/{LOADING}", body)
    assert (answer.status, answer.headers["x-compute-type"]) == (200, "gpu")
    assert failing_service.metadata["x-use-cache"] == "false"


def test_flag_that_is_no_boolean_is_refused(failing_gateway: RunningGateway) -> None:
    answer = post(f"{failing_gateway.url}/models/{READY}", INPUTS, X_use_cache="perhaps")
    assert answer.status == 422


def test_loading_model_is_503_with_an_estimate(failing_gateway: RunningGateway) -> None:
    answer = post(f"{failing_gateway.url}/models/{LOADING}", INPUTS)
    assert answer.status == 503
    assert answer.json["estimated_time"] == 20.0
    assert answer.headers["retry-after"] == "20"


def test_requests_of_unset_model_get_the_default_one(gateway: RunningGateway) -> None:
    answer = post(f"{gateway.url}/nebius/v1/images/generations", INPUTS)
    assert answer.image.size == (96, 64)
