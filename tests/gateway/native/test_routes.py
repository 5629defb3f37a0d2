"""The native routes: the contract as JSON and server-sent events."""

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import grpc
import jsonschema
import openapi_spec_validator
import PIL.Image
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from safelight import CallCancelledError, Client, GenerationOutcome

from safelight_gateway.native.openapi import event_schema_names
from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    chunk,
    completed,
    failure,
    header,
    image,
    png,
    progress,
    status,
)
from tests.gateway.event_stream import ServerSentEvent, generate, read_events
from tests.gateway.http_call import call, opened

PARAMETERS = {"width": 96, "height": 64, "num_inference_steps": 4, "seed": "5"}
REQUEST = {
    "inputs": "a red circle",
    "parameters": PARAMETERS,
    "preview": {"interval_steps": 1, "max_side_px": 64},
}
ENDLESS = {"inputs": "a red circle", "parameters": {"num_inference_steps": 150}}


@pytest.fixture
def scripted() -> Iterator[ScriptedService]:
    with ScriptedService() as service:
        yield service


@pytest.fixture
def scripted_gateway(scripted: ScriptedService) -> Iterator[RunningGateway]:
    """A gateway to a service that plays a script."""
    with run_gateway(scripted.target) as running:
        yield running


def only(events: list[ServerSentEvent], kind: str) -> list[ServerSentEvent]:
    return [event for event in events if event.kind == kind]


def open_image(event: ServerSentEvent) -> PIL.Image.Image:
    data = base64.b64decode(event.data["data"])
    assert hashlib.sha256(data).hexdigest() == event.data["sha256"]
    return PIL.Image.open(io.BytesIO(data))


def test_a_generation_streams_every_event_with_its_image(gateway: RunningGateway) -> None:
    request = {**REQUEST, "generation_id": "native-streams", "image_count": 2}
    events = generate(f"{gateway.url}/v1/generate", request)
    assert events[0].kind == "accepted"
    assert events[0].data["generation_id"] == "native-streams"
    assert events[0].data["parameters"]["seed"] == "5"
    assert {"progress", "preview", "image"} == {event.kind for event in events[1:-1]}
    for preview in only(events, "preview"):
        data = base64.b64decode(preview.data["data"])
        assert PIL.Image.open(io.BytesIO(data)).size == (64, 43)
    images = only(events, "image")
    assert [(event.data["image_index"], event.data["seed"], event.id) for event in images] == [
        (0, "5", "1"),
        (1, "6", "2"),
    ]
    assert [open_image(event).size for event in images] == [(96, 64), (96, 64)]
    assert (events[-1].kind, events[-1].id) == ("completed", "end")
    assert events[-1].data["step_count"] == 8


def test_events_come_while_the_image_is_made(gateway: RunningGateway) -> None:
    with opened(f"{gateway.url}/v1/generate", "POST", ENDLESS) as response:
        events = read_events(response)
        assert [next(events).kind, next(events).kind] == ["accepted", "progress"]


def test_images_come_as_links_when_asked(gateway: RunningGateway) -> None:
    events = generate(f"{gateway.url}/v1/generate?images=url", REQUEST)
    (linked,) = only(events, "image")
    assert "data" not in linked.data
    assert linked.data["url"].startswith(f"{gateway.url}/files/")
    file = call(linked.data["url"])
    assert file.headers["content-type"] == "image/png"
    assert hashlib.sha256(file.body).hexdigest() == linked.data["sha256"]


def test_names_may_be_written_as_in_javascript(gateway: RunningGateway) -> None:
    request = {"inputs": "a star", "parameters": {"numInferenceSteps": 2, "width": 64}}
    events = generate(f"{gateway.url}/v1/generate", request)
    parameters = events[0].data["parameters"]
    assert (parameters["num_inference_steps"], parameters["width"]) == (2, 64)


def test_a_model_may_be_named_by_an_alias(gateway: RunningGateway) -> None:
    request = {**REQUEST, "model": "black-forest-labs/FLUX.1-dev"}
    assert generate(f"{gateway.url}/v1/generate", request)[0].data["model"] == "shapes"


def test_a_disconnect_cancels(scripted: ScriptedService, scripted_gateway: RunningGateway) -> None:
    scripted.play(accepted(), HOLD)
    with opened(f"{scripted_gateway.url}/v1/generate", "POST", REQUEST) as response:
        assert next(read_events(response)).kind == "accepted"
    assert scripted.cancelled.wait(10)
    assert scripted.cancelled_by_id.wait(10)  # since the gateway lets it linger
    assert scripted.cancelled_ids == [scripted.requests[0].generation_id]


def test_a_disconnect_before_the_first_event_cancels(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(HOLD)
    url = f"{scripted_gateway.url}/v1/generate"
    with pytest.raises(TimeoutError), opened(url, "POST", REQUEST, timeout_s=0.5):
        pass
    assert scripted.cancelled.wait(10)
    assert scripted.cancelled_by_id.wait(10)


@pytest.mark.parametrize(
    "fields",
    [{}, {"linger": "60s"}, {"generation_id": "native-resumes", "linger": "60s"}],
    ids=["neither", "linger", "both"],
)
def test_a_broken_stream_of_the_service_is_resumed_and_each_event_comes_once(
    scripted: ScriptedService, scripted_gateway: RunningGateway, fields: dict[str, str]
) -> None:
    broken = status(grpc.StatusCode.INTERNAL, "Received RST_STREAM with error code 2")
    scripted.play_in_turn(
        [accepted(2), progress(1), *image(0), broken],
        [accepted(2), progress(2), *image(0), *[*image(1)][:2], broken],
        [accepted(2), progress(2), *image(0), *image(1), completed()],
    )
    request = {**REQUEST, "image_count": 2, **fields}
    events = generate(f"{scripted_gateway.url}/v1/generate", request)
    assert [event.kind for event in events] == [
        *("accepted", "progress", "image", "progress", "image", "completed")
    ]
    assert [open_image(event).size for event in only(events, "image")] == [(16, 16)] * 2
    first, *others = scripted.requests
    assert others == [first, first]
    assert first.generation_id == fields.get("generation_id", first.generation_id) != ""
    assert first.linger.seconds == (60 if "linger" in fields else 10)
    assert not scripted.cancelled_ids


def test_a_named_generation_lingers_only_if_asked_to(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(accepted(), HOLD)
    request = {**REQUEST, "generation_id": "native-named"}
    with opened(f"{scripted_gateway.url}/v1/generate", "POST", request) as response:
        next(read_events(response))
    assert scripted.cancelled.wait(10)
    assert not scripted.requests[0].HasField("linger")


def test_a_lingering_generation_repeats_no_image_after_a_reconnect(
    gateway: RunningGateway, service: RunningService
) -> None:
    url = f"{gateway.url}/v1/generations/native-lingers"
    request = {**REQUEST, "generation_id": "native-lingers", "linger": "60s"}
    with opened(f"{gateway.url}/v1/generate", "POST", request) as response:
        assert next(read_events(response)).kind == "accepted"
    with opened(url, "GET") as response:
        events = list(read_events(response))
    assert len(only(events, "image")) == 1
    with opened(url, "GET", headers={"last-event-id": "1"}) as response:
        events = list(read_events(response))
    assert [(event.kind, event.id) for event in events if event.id] == [
        ("accepted", "1"),
        ("completed", "end"),
    ]
    # A 204 stops an EventSource that reconnects after the end.
    assert call(url, headers={"last-event-id": "end"}).status == 204


def test_a_generation_is_cancelled_by_its_id(
    gateway: RunningGateway, service: RunningService
) -> None:
    request = {**ENDLESS, "generation_id": "native-cancels"}
    with opened(f"{gateway.url}/v1/generate", "POST", request) as response:
        events = read_events(response)
        next(events)
        answer = call(f"{gateway.url}/v1/generations/native-cancels", "DELETE")
        assert answer.json == {"state": "GENERATION_STATE_CANCELLED"}
        *_, last = events
    assert (last.kind, last.id) == ("failed", "end")
    assert (last.data["status"], last.data["reason"]) == (409, "CANCELLED")
    with Client(service.target) as client:
        assert client.cancel("native-cancels") is GenerationOutcome.CANCELLED
        with pytest.raises(CallCancelledError), client.watch("native-cancels") as watch:
            list(watch)


def test_every_bad_field_is_named_in_the_problem(gateway: RunningGateway) -> None:
    request = {"inputs": "a star", "parameters": {"width": 7, "num_inference_steps": 0}}
    answer = call(f"{gateway.url}/v1/generate", "POST", request)
    assert answer.status == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json
    assert (problem["status"], problem["reason"]) == (422, "INVALID_REQUEST")
    assert {violation["field"] for violation in problem["violations"]} == {
        "parameters.width",
        "parameters.num_inference_steps",
    }


@pytest.mark.parametrize(
    ("request_", "field", "description"),
    [
        ({"parameters": {"width": "wide"}}, "parameters.width", "must be an integer"),
        ({"parameters": {"seed": 1.5}}, "parameters.seed", "must be an integer"),
        ({"parameters": {"guidance_scale": "x"}}, "parameters.guidance_scale", "must be a number"),
        ({"parameters": {"guidanceScale": []}}, "parameters.guidance_scale", "must be a number"),
        ({"imageCount": True}, "image_count", "must be an integer"),
        ({"output": {"quality": 1e12}}, "output.quality", "must be an integer within 32 bits"),
        ({"inputs": 3}, "inputs", "must be a string"),
        ({"linger": "soon"}, "linger", "must be a duration"),
        ({"preview": 5}, "preview", "must be an object"),
        ({"preview": [1]}, "preview", "must be an object"),
        ({"inputs": "\ud800"}, "inputs", "must be a string"),
        ({"colour": "red"}, "colour", "is no field"),
        ({"parameters": {"steps": 3}}, "parameters.steps", "is no field"),
    ],
)
def test_what_does_not_fit_the_contract_is_named(
    gateway: RunningGateway, request_: dict[str, Any], field: str, description: str
) -> None:
    answer = call(f"{gateway.url}/v1/generate", "POST", {"inputs": "a star", **request_})
    assert answer.status == 422
    (violation,) = answer.json["violations"]
    assert violation["field"] == field
    assert violation["description"].startswith(description)


def test_a_body_that_is_no_object_is_a_bad_request(gateway: RunningGateway) -> None:
    answer = call(f"{gateway.url}/v1/generate", "POST", ["a star"])
    assert (answer.status, answer.json["reason"]) == (400, "BAD_REQUEST")


def test_another_kind_of_image_is_refused(gateway: RunningGateway) -> None:
    answer = call(f"{gateway.url}/v1/generate?images=gold", "POST", REQUEST)
    assert answer.json["violations"] == [
        {"field": "images", "description": "must be data or url, not 'gold'"}
    ]


@pytest.mark.parametrize(
    ("method", "path", "body", "reason"),
    [
        ("GET", "v1/generations/native-nobody", None, "GENERATION_NOT_FOUND"),
        ("DELETE", "v1/generations/native-nobody", None, "GENERATION_NOT_FOUND"),
        ("POST", "v1/generate", {"inputs": "a star", "model": "nope"}, "MODEL_NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_404(
    gateway: RunningGateway, method: str, path: str, body: object, reason: str
) -> None:
    answer = call(f"{gateway.url}/{path}", method, body)
    assert (answer.status, answer.json["reason"]) == (404, reason)


def test_a_full_queue_keeps_when_to_come_back(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    details = (
        ErrorInfo(reason="QUEUE_FULL", domain="safelight"),
        RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
    )
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "64 generations wait", *details))
    answer = call(f"{scripted_gateway.url}/v1/generate", "POST", REQUEST)
    assert (answer.status, answer.headers["retry-after"]) == (429, "3")
    assert (answer.json["reason"], answer.json["retry_after_s"]) == ("QUEUE_FULL", 2.5)


def test_a_generation_that_fails_midway_says_why_in_its_last_event(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    lost = ErrorInfo(reason="DEVICE_LOST", domain="safelight")
    scripted.play(accepted(), image(), status(grpc.StatusCode.UNAVAILABLE, "gone", lost))
    events = generate(f"{scripted_gateway.url}/v1/generate", REQUEST)
    assert [event.kind for event in events] == ["accepted", "image", "failed"]
    assert events[-1].data["reason"] == "DEVICE_LOST"
    assert events[-1].data["title"] == "Service Unavailable"


DATA = png()
BROKEN = {
    "other bytes": ([header(DATA), chunk(png("blue"))], "image 0 has"),
    "another digest": ([header(DATA, sha256="0" * 64), chunk(DATA)], "the SHA-256 of image 0"),
    "a short image": ([header(DATA), chunk(DATA[:5])], "the generation ended with 0 images"),
    "a gap": ([header(DATA), chunk(DATA[5:], offset=5)], "a chunk of image 0 starts at byte 5"),
    "chunks of two images": ([header(DATA), chunk(DATA, index=1)], "a chunk of image 1"),
    "no image": ([progress(1)], "the generation ended with 0 images"),
}
"""Streams that break the contract, each with its error message."""


@pytest.mark.parametrize(("steps", "detail"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("images", ["data", "url"])
def test_an_image_that_is_not_the_announced_one_ends_the_stream_by_failed(
    images: str,
    steps: list[object],
    detail: str,
    scripted: ScriptedService,
    scripted_gateway: RunningGateway,
) -> None:
    scripted.play(accepted(), *steps, completed())
    events = generate(f"{scripted_gateway.url}/v1/generate?images={images}", REQUEST)
    kinds = [event.kind for event in events]
    assert (kinds[0], kinds[-1]) == ("accepted", "failed")
    assert {*kinds[1:-1]} <= {"progress"}
    assert events[-1].data["detail"].startswith(detail)
    assert (events[-1].data["status"], events[-1].data["reason"]) == (502, "PROTOCOL")
    assert events[-1].id == "end"


def test_images_before_a_broken_one_are_delivered(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(accepted(2), image(0), header(DATA, 1, sha256="0" * 64), chunk(DATA, 0, 1), HOLD)
    events = generate(f"{scripted_gateway.url}/v1/generate", REQUEST)
    assert [event.kind for event in events] == ["accepted", "image", "failed"]
    assert open_image(events[1]).size == (16, 16)
    assert scripted.cancelled.wait(10)


def test_a_stream_that_ends_early_fails(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(accepted(), image())
    events = generate(f"{scripted_gateway.url}/v1/generate", REQUEST)
    assert [event.kind for event in events] == ["accepted", "image", "failed"]
    assert events[-1].data["reason"] == "PROTOCOL"


def test_a_broken_image_is_found_after_a_reconnect_too(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(accepted(2), image(0), header(DATA, 1), chunk(DATA[:5], 0, 1), completed())
    url = f"{scripted_gateway.url}/v1/generations/generation-1"
    with opened(url, "GET", headers={"last-event-id": "1"}) as response:
        events = list(read_events(response))
    assert [event.kind for event in events] == ["accepted", "failed"]


def test_headers_become_metadata(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(accepted(), image(), failure(grpc.StatusCode.INTERNAL, "INTERNAL"))
    headers = {"authorization": "Bearer hf_secret", "x-wait-for-model": "1", "x-use-cache": "0"}
    generate(f"{scripted_gateway.url}/v1/generate", REQUEST, headers)
    assert scripted.metadata["authorization"] == "Bearer hf_secret"
    assert scripted.metadata["x-wait-for-model"] == "true"
    assert scripted.metadata["x-use-cache"] == "false"


def test_models_describe_their_parameters(gateway: RunningGateway) -> None:
    (model,) = call(f"{gateway.url}/v1/models").json["models"]
    assert (model["name"], model["is_default"]) == ("shapes", True)
    assert model["capabilities"]["limits"]["size_multiple_px"] == 8


def test_health_and_readiness(gateway: RunningGateway) -> None:
    assert call(f"{gateway.url}/healthz").json == {"status": "ok"}
    assert call(f"{gateway.url}/readyz").json == {"status": "SERVING"}


def test_a_gateway_whose_service_is_gone_lives_but_is_not_ready() -> None:
    with run_gateway("127.0.0.1:1") as gateway:
        assert call(f"{gateway.url}/healthz").status == 200
        answer = call(f"{gateway.url}/readyz")
        assert (answer.status, answer.json["reason"]) == (503, "SERVICE_UNAVAILABLE")
        assert answer.json["detail"] == "the service cannot be reached"


def test_pages_of_other_origins_may_call(gateway: RunningGateway) -> None:
    asked = {
        "origin": "https://pages.example",
        "access-control-request-method": "DELETE",
        "access-control-request-headers": "authorization,last-event-id",
    }
    answer = call(f"{gateway.url}/v1/generations/native-cors", "OPTIONS", headers=asked)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "DELETE" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == "authorization,last-event-id"
    refused = call(f"{gateway.url}/v1/generate", "POST", {}, {"origin": "https://pages.example"})
    assert refused.headers["access-control-allow-origin"] == "*"
    assert "retry-after" in refused.headers["access-control-expose-headers"]


def test_the_description_is_valid_and_holds(gateway: RunningGateway) -> None:
    document = call(f"{gateway.url}/openapi.json").json
    openapi_spec_validator.validate(document)

    def check(value: object, schema: str) -> None:
        reference = {"$ref": f"#/components/schemas/{schema}"}
        jsonschema.Draft202012Validator({**document, **reference}).validate(value)

    names = event_schema_names()
    for event in generate(f"{gateway.url}/v1/generate", REQUEST):
        check(event.data, names[event.kind])
    check(REQUEST, "GenerateRequest")
    check(call(f"{gateway.url}/v1/models").json, "ListModelsResponse")
    check(call(f"{gateway.url}/v1/generate", "POST", {"steps": 3}).json, "Problem")
    with pytest.raises(jsonschema.ValidationError):
        check({"inputs": 3}, "GenerateRequest")


def test_every_route_of_the_description_is_there(gateway: RunningGateway) -> None:
    document = call(f"{gateway.url}/openapi.json").json
    for path, operations in document["paths"].items():
        for method in operations:
            url = gateway.url + path.replace("{generation_id}", "native-nobody")
            answer = call(url, method.upper(), {} if method == "post" else None)
            is_problem = answer.headers["content-type"] == "application/problem+json"
            assert answer.status == 200 or is_problem, (method, path)
