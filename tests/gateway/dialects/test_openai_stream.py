"""OpenAI's stream: partial images, then the image."""

import base64
import io
import threading
from typing import Any

import PIL.Image
import pytest

from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import PROMPT
from tests.gateway.event_stream import ServerSentEvent, read_events
from tests.gateway.failing_service import ENDLESS, READY, FailingService
from tests.gateway.http_call import opened, post

PARTIAL, COMPLETED = "image_generation.partial_image", "image_generation.completed"
PATH = "/v1/images/generations"


def stream(gateway: RunningGateway, **fields: Any) -> list[ServerSentEvent]:
    """Return the events of a stream."""
    with opened(f"{gateway.url}{PATH}", "POST", {**PROMPT, "stream": True, **fields}) as response:
        return list(read_events(response))


def picture(event: ServerSentEvent) -> PIL.Image.Image:
    assert event.data["type"] == event.kind
    image = PIL.Image.open(io.BytesIO(base64.b64decode(event.data["b64_json"])))
    assert event.data["size"] == f"{image.width}x{image.height}"
    assert event.data["output_format"].upper() == image.format
    return image


def test_partial_images_come_before_the_image(gateway: RunningGateway) -> None:
    events = stream(gateway, num_inference_steps=4, seed=71, partial_images=2)
    assert [event.kind for event in events] == [PARTIAL, PARTIAL, COMPLETED]
    assert [event.data["partial_image_index"] for event in events[:2]] == [0, 1]
    assert [picture(event).size for event in events] == [(96, 64)] * 3
    assert [picture(event).format for event in events] == ["JPEG", "JPEG", "PNG"]
    plain = post(f"{gateway.url}{PATH}", {**PROMPT, "num_inference_steps": 4, "seed": 71}).json
    assert plain["data"][0]["b64_json"] == events[-1].data["b64_json"]
    assert (plain["size"], plain["output_format"]) == ("96x64", "png")


def test_stream_without_partial_images_has_each_image(gateway: RunningGateway) -> None:
    events = stream(gateway, n=2, output_format="webp")
    assert [event.kind for event in events] == [COMPLETED, COMPLETED]
    assert [picture(event).format for event in events] == ["WEBP", "WEBP"]
    assert {event.data["seed"] for event in events} == {7, 8}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"partial_images": 4}, "partial_images"),
        ({"partial_images": 2, "stream": False}, "partial_images"),
        ({"partial_images": 1, "n": 2}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"response_format": "url"}, "response_format"),
        ({"size": "97x64", "width": None, "height": None}, "size"),
    ],
)
def test_stream_that_cannot_be_given_is_422_instead(
    fields: dict[str, Any], param: str, gateway: RunningGateway
) -> None:
    answer = post(f"{gateway.url}{PATH}", {**PROMPT, "stream": True, **fields})
    assert (answer.status, answer.json["error"]["param"]) == (422, param)


def test_hints_of_a_stream_are_named(failing_gateway: RunningGateway) -> None:
    body = {**PROMPT, "stream": True, "model": READY, "quality": "hd"}
    with opened(f"{failing_gateway.url}{PATH}", "POST", body) as response:
        assert response.headers["x-ignored-parameters"] == "quality"


def test_failure_before_the_first_event_is_an_error_of_its_own(
    failing_gateway: RunningGateway,
) -> None:
    body = {**PROMPT, "stream": True, "model": "queue-full"}
    answer = post(f"{failing_gateway.url}{PATH}", body)
    assert (answer.status, answer.headers["retry-after"]) == (429, "2")


def test_client_that_leaves_the_stream_cancels_the_generation(
    failing_gateway: RunningGateway, failing_service: FailingService
) -> None:
    failing_service.has_left = threading.Event()
    body = {**PROMPT, "stream": True, "model": ENDLESS}
    with opened(f"{failing_gateway.url}{PATH}", "POST", body) as response:
        assert response.status == 200
    assert failing_service.has_left.wait(10)
