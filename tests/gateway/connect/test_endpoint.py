"""Connect and gRPC-Web through the gateway: streams, answers, errors, limits and leaving."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from safelight.v1 import text_to_image_pb2 as pb

from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    status,
    whole_generation,
)
from tests.gateway.connect.wire import (
    PROTOCOLS,
    SERVICE,
    End,
    encode,
    failure_of,
    pack,
    streaming,
)
from tests.gateway.failing_service import BAD_TOKEN, ENDLESS, FailingService
from tests.gateway.http_call import Answer, call, post
from tests.gateway.leaving import has_stopped

REQUEST = pb.GenerateRequest(
    inputs="a red circle",
    parameters=pb.TextToImageParameters(num_inference_steps=2, width=96, height=64, seed=5),
    preview=pb.PreviewOptions(interval_steps=1),
)
INVALID = pb.GenerateRequest(
    inputs="a star", parameters=pb.TextToImageParameters(width=7, num_inference_steps=0)
)
PATH = f"/{SERVICE}/Generate"
JSON = {"content_type": "application/connect+json"}


@pytest.fixture
def scripted() -> Iterator[ScriptedService]:
    with ScriptedService() as service:
        yield service


@pytest.fixture
def scripted_gateway(scripted: ScriptedService) -> Iterator[RunningGateway]:
    """A gateway to a service that plays a script."""
    with run_gateway(scripted.target) as running:
        yield running


def ask(url: str, method: str, codec: str, request: Any = None, **headers: str) -> Answer:
    """Call a method with one answer, by Connect."""
    body = encode(request or pb.ListModelsRequest(), codec)
    return post(f"{url}/{SERVICE}/{method}", body, content_type=f"application/{codec}", **headers)


def end_of(
    url: str, request: pb.GenerateRequest, protocol: str = PROTOCOLS[0], **headers: str
) -> End:
    """Read a stream to its end."""
    with streaming(url, request, protocol, **headers) as stream:
        *_, end = stream
    assert isinstance(end, End)
    return end


def frame(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_generation_streams_every_message_unchanged(
    gateway: RunningGateway, protocol: str
) -> None:
    with streaming(gateway.url, REQUEST, protocol) as stream:
        *events, end = stream
    assert isinstance(end, End)
    assert end == End(None, {"x-cache": "bypass"})
    kinds = [event.WhichOneof("kind") for event in events if isinstance(event, pb.GenerationEvent)]
    assert (kinds[0], kinds[-3:]) == ("accepted", ["image", "chunk", "completed"])
    header, chunk = events[-3].image, events[-2].chunk  # type: ignore[union-attr]
    assert (header.width, header.height, header.seed) == (96, 64, 5)
    assert len(chunk.data) == header.size_bytes


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_leaving_cancels_the_call_of_the_service(
    scripted: ScriptedService, scripted_gateway: RunningGateway, protocol: str
) -> None:
    scripted.play(accepted(), HOLD)
    with streaming(scripted_gateway.url, REQUEST, protocol) as stream:
        assert isinstance(next(stream), pb.GenerationEvent)
    assert scripted.cancelled.wait(10)


def test_leaving_stops_the_device(gateway: RunningGateway, service: RunningService) -> None:
    request = pb.GenerateRequest(
        inputs="a red circle",
        generation_id="connect-leaves",
        parameters=pb.TextToImageParameters(num_inference_steps=150, width=512, height=512),
    )
    with streaming(gateway.url, request, PROTOCOLS[0]) as stream:
        kinds = (event.WhichOneof("kind") for event in stream if not isinstance(event, End))
        assert "progress" in kinds
    assert has_stopped(service.target, "connect-leaves")  # it would run for a minute


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_all_bad_fields_are_named_in_the_details(gateway: RunningGateway, protocol: str) -> None:
    if protocol.startswith("grpc-web"):  # the status comes in the headers, before any message
        body = pack(INVALID, protocol)
        answer = post(f"{gateway.url}{PATH}", body, content_type=f"application/{protocol}")
        assert (answer.status, answer.body[:1]) == (200, b"\x80")
    failure = end_of(gateway.url, INVALID, protocol).failure
    assert failure is not None
    assert failure.code in ("invalid_argument", "3")
    assert failure.reason == "INVALID_REQUEST"
    assert failure.fields == {"parameters.width", "parameters.num_inference_steps"}


def test_details_of_the_service_come_unchanged(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    refusal = status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "no more today",
        ErrorInfo(reason="RATE_LIMITED", domain="safelight", metadata={"limit": "3"}),
        QuotaFailure(violations=[QuotaFailure.Violation(subject="token a")]),
        RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
    )
    scripted.play_in_turn([refusal])
    failure = end_of(scripted_gateway.url, REQUEST).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("resource_exhausted", "no more today")
    assert ErrorInfo.FromString(failure.details["google.rpc.ErrorInfo"]).metadata["limit"] == "3"
    assert "google.rpc.QuotaFailure" in failure.details
    assert failure.retry_after_s == 2.5


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_time_until_another_attempt_comes_unchanged(
    scripted: ScriptedService, scripted_gateway: RunningGateway, protocol: str
) -> None:
    scripted.pushback_ms = -1
    stopping = status(grpc.StatusCode.UNAVAILABLE, "no", ErrorInfo(domain="safelight"))
    scripted.play_in_turn([accepted(), stopping])
    end = end_of(scripted_gateway.url, REQUEST, protocol)
    assert end.metadata["grpc-retry-pushback-ms"] == "-1"
    scripted.play_in_turn([stopping])
    answer = ask(scripted_gateway.url, "ListModels", "proto")
    assert answer.headers["trailer-grpc-retry-pushback-ms"] == "-1"


def test_the_address_of_the_service_is_kept_from_callers() -> None:
    with run_gateway("127.0.0.1:1") as unreachable:
        failure = end_of(unreachable.url, REQUEST).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("unavailable", "the service cannot be reached")


@pytest.mark.parametrize(
    ("code", "expected"),
    [(grpc.StatusCode.UNAVAILABLE, "unavailable"), (grpc.StatusCode.INTERNAL, "internal")],
)
def test_a_broken_stream_has_no_reason_so_that_callers_resume(
    scripted: ScriptedService,
    scripted_gateway: RunningGateway,
    code: grpc.StatusCode,
    expected: str,
) -> None:
    scripted.play_in_turn([accepted(), status(code, "Socket closed")])
    failure = end_of(scripted_gateway.url, REQUEST).failure
    assert failure is not None
    assert (failure.code, failure.details) == (expected, {})


@pytest.mark.parametrize("codec", ["proto", "json"])
def test_every_method_with_one_answer_gives_it(gateway: RunningGateway, codec: str) -> None:
    listed = ask(gateway.url, "ListModels", codec)
    assert (listed.status, listed.headers["content-type"]) == (200, f"application/{codec}")
    got = ask(gateway.url, "GetModel", codec, pb.GetModelRequest(model="shapes"))
    if codec == "json":
        assert [model["name"] for model in listed.json["models"]] == ["shapes"]
        assert got.json["model"]["capabilities"]["supportedParameters"]  # in camel case
    else:
        assert pb.GetModelResponse.FromString(got.body).model.name == "shapes"
    unknown = pb.CancelGenerationRequest(generation_id="connect-nobody")
    refused = ask(gateway.url, "CancelGeneration", codec, unknown)
    assert refused.status == 404
    failure = failure_of(refused.json)
    assert (failure.code, failure.reason) == ("not_found", "GENERATION_NOT_FOUND")


def test_a_generation_may_be_watched(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(whole_generation())
    request = pb.WatchGenerationRequest(generation_id="any")
    with streaming(scripted_gateway.url, request, PROTOCOLS[0], "WatchGeneration") as stream:
        *events, end = stream
    assert len(events) == len(scripted.script)
    assert end == End(None, {})


def test_metadata_of_the_caller_reaches_the_service(
    scripted: ScriptedService, scripted_gateway: RunningGateway
) -> None:
    scripted.play(accepted())
    trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
    headers = {
        "authorization": "Bearer secret",
        "x_use_cache": "FALSE",
        "x_wait_for_model": "1",
        "x_generation_id": "some-id",
        "traceparent": trace,
        "x_request_id": "request-1",
        "x_forwarded_for": "203.0.113.9",
        "x_other": "kept",
        "x_bad": "caf\u00e9",
    }
    assert end_of(scripted_gateway.url, REQUEST, **headers).failure is None
    expected = {
        "authorization": "Bearer secret",
        "x-use-cache": "false",
        "x-wait-for-model": "true",
        "x-generation-id": "some-id",
        "traceparent": trace,
        "x-request-id": "request-1",
        "x-forwarded-for": "203.0.113.9",
    }
    assert expected.items() <= scripted.metadata.items()
    assert not {"x-other", "x-bad"} & scripted.metadata.keys()


@pytest.mark.parametrize(
    ("protocol", "name", "value"),
    [(PROTOCOLS[0], "connect_timeout_ms", "200"), (PROTOCOLS[2], "grpc_timeout", "200m")],
)
def test_a_deadline_reaches_the_service(
    scripted: ScriptedService,
    scripted_gateway: RunningGateway,
    protocol: str,
    name: str,
    value: str,
) -> None:
    scripted.play(accepted(), HOLD)
    failure = end_of(scripted_gateway.url, REQUEST, protocol, **{name: value}).failure
    assert failure is not None
    assert failure.code in ("deadline_exceeded", "4")
    assert scripted.time_remaining is not None
    assert 0 < scripted.time_remaining <= 0.2
    assert scripted.cancelled.wait(10)


@pytest.mark.parametrize("value", ["1.5", "-1", "soon", "12345678901"])
def test_a_deadline_that_is_none_is_refused(gateway: RunningGateway, value: str) -> None:
    answer = ask(gateway.url, "ListModels", "proto", connect_timeout_ms=value)
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")


def test_a_call_without_a_deadline_gets_that_of_the_gateway(scripted: ScriptedService) -> None:
    scripted.play(accepted(), HOLD)
    with run_gateway(scripted.target, max_request_s=0.2) as gateway:
        failure = end_of(gateway.url, REQUEST).failure
    assert failure is not None
    assert failure.code == "deadline_exceeded"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"inputs": "a star", "colour": "red"}, "colour"),
        ({"inputs": "a star", "parameters": {"width": "wide"}}, "parameters.width"),
    ],
)
def test_json_that_does_not_fit_the_contract_is_refused_by_field(
    gateway: RunningGateway, fields: dict[str, Any], name: str
) -> None:
    answer = post(f"{gateway.url}{PATH}", frame(json.dumps(fields).encode()), **JSON)
    end = json.loads(answer.body[5:])
    failure = failure_of(end["error"])
    assert (failure.code, failure.fields) == ("invalid_argument", {name})


@pytest.mark.parametrize("name", ["numInferenceSteps", "num_inference_steps"])
def test_names_may_be_written_in_both_ways(gateway: RunningGateway, name: str) -> None:
    fields = {"inputs": "a star", "parameters": {name: 0}}
    answer = post(f"{gateway.url}{PATH}", frame(json.dumps(fields).encode()), **JSON)
    failure = failure_of(json.loads(answer.body[5:])["error"])
    assert failure.fields == {"parameters.num_inference_steps"}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": 5}', b'{"model": "a", "model": "b"}'])
def test_a_body_that_is_no_message_is_refused(gateway: RunningGateway, body: bytes) -> None:
    url = f"{gateway.url}/{SERVICE}/GetModel"
    answer = post(url, body, content_type="application/json")
    assert (answer.status, answer.json["code"]) == (400, "invalid_argument")


def test_a_token_that_the_service_refuses_is_unauthenticated(
    failing_gateway: RunningGateway,
) -> None:
    answer = ask(failing_gateway.url, "ListModels", "proto", authorization=f"Bearer {BAD_TOKEN}")
    failure = failure_of(answer.json)
    assert (answer.status, failure.code, failure.reason) == (
        *(401, "unauthenticated", "UNAUTHENTICATED"),
    )


def test_a_large_body_is_refused_before_it_is_read(failing_gateway: RunningGateway) -> None:
    large = pb.GenerateRequest(inputs="x" * 70_000)
    failure = end_of(failing_gateway.url, large).failure
    assert failure is not None
    assert (failure.code, failure.reason) == ("resource_exhausted", "TOO_LARGE")
    answer = ask(failing_gateway.url, "GetModel", "proto", pb.GetModelRequest(model="x" * 70_000))
    assert (answer.status, failure_of(answer.json).reason) == (429, "TOO_LARGE")


def test_a_caller_gets_its_share_of_calls_and_no_more(
    failing_service: FailingService, guarded_gateway: RunningGateway
) -> None:
    endless = pb.GenerateRequest(inputs="a star", model=ENDLESS)
    with (
        streaming(guarded_gateway.url, endless, PROTOCOLS[0]) as first,
        streaming(guarded_gateway.url, endless, PROTOCOLS[0]) as second,
    ):
        assert isinstance(next(first), pb.GenerationEvent)
        assert isinstance(next(second), pb.GenerationEvent)
        failure = end_of(guarded_gateway.url, endless).failure
    assert failure is not None
    assert (failure.code, failure.reason) == ("resource_exhausted", "TOO_MANY_GENERATIONS")
    assert failure.retry_after_s == 1


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto"])
def test_grpc_itself_is_refused_in_words(gateway: RunningGateway, content_type: str) -> None:
    answer = post(f"{gateway.url}{PATH}", b"", content_type=content_type)
    assert (answer.status, answer.body) == (415, b"gRPC needs HTTP/2: call the service itself")


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [("application/grpc-web-text", 415), ("application/connect+xml", 415), ("text/plain", 415)],
)
def test_other_encodings_are_refused(
    gateway: RunningGateway, content_type: str, expected: int
) -> None:
    assert post(f"{gateway.url}{PATH}", b"", content_type=content_type).status == expected


def test_pages_of_other_origins_may_call(gateway: RunningGateway) -> None:
    asked = "authorization,connect-protocol-version,connect-timeout-ms,content-type,x-grpc-web"
    preflight = call(
        f"{gateway.url}{PATH}", "OPTIONS", None, {"access-control-request-headers": asked}
    )
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == asked
    answer = ask(gateway.url, "ListModels", "proto")
    assert answer.headers["access-control-allow-origin"] == "*"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"grpc-status", "grpc-message", "grpc-status-details-bin"} <= {*exposed}
    assert {"grpc-retry-pushback-ms", "trailer-grpc-retry-pushback-ms"} <= {*exposed}
    assert answer.headers["x-request-id"]


def test_the_routes_are_those_of_the_extra(
    scripted: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "connectrpc", None)  # as where it is not installed
    with run_gateway(scripted.target) as without:
        assert ask(without.url, "ListModels", "proto").status == 404


def test_other_methods_are_not_there(gateway: RunningGateway) -> None:
    assert call(f"{gateway.url}{PATH}").status == 405
    assert post(f"{gateway.url}/{SERVICE}/Paint", b"").status == 404
