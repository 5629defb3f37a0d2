"""Envoy with this repository's configuration: gRPC-Web and Connect, over HTTP/1.1."""

import base64
import http.client
import json
import re
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc
from safelight import Client, Completed, Progress
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.running_envoy import Envoy, run_envoy
from support.running_service import RunningService, run_service
from support.tcp_proxy import TcpProxy
from tests.gateway.third_party.connect_es import IS_INSTALLED, ConnectCall, run_connect_es

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.skipif(not Envoy.is_installed(), reason="Envoy is not installed")
SERVICE = "/safelight.v1.TextToImageService"
CALLS = 1000
"""Calls of which some met a killed replica only, with five attempts to choose another."""
_TRAILERS, _END_OF_STREAM = 0x80, 0x02


@dataclass(frozen=True, slots=True)
class Frame:
    """One length-prefixed frame of a gRPC-Web or Connect stream."""

    flags: int
    data: bytes

    @property
    def event(self) -> pb.GenerationEvent:
        return pb.GenerateResponse.FromString(self.data).event


def pack(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def read_frames(response: http.client.HTTPResponse) -> Iterator[Frame]:
    while prefix := response.read(5):
        flags, size = struct.unpack(">BI", prefix)
        yield Frame(flags, response.read(size))


@pytest.fixture(scope="module")
def envoy(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with run_envoy(tmp_path_factory.mktemp("envoy"), service.target) as running:
        yield running


def call(
    envoy: Envoy, method: str, body: bytes, headers: dict[str, str]
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(envoy.address, timeout=30)
    connection.request("POST", f"{SERVICE}/{method}", body, headers)
    return connection, connection.getresponse()


def web_call(
    envoy: Envoy, method: str, message: bytes, **headers: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Call with gRPC-Web, as browsers do."""
    content_type = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}
    return call(envoy, method, pack(message), content_type | headers)


def connect_call(
    envoy: Envoy, method: str, body: bytes, **headers: str
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """Call with Connect, as browsers do."""
    return call(envoy, method, body, {"connect-protocol-version": "1", **headers})


def drawing(**fields: object) -> pb.GenerateRequest:
    parameters = pb.TextToImageParameters(num_inference_steps=4, width=96, height=64, seed=5)
    preview = pb.PreviewOptions(interval_steps=1)
    request = pb.GenerateRequest(inputs="a red circle", parameters=parameters, preview=preview)
    request.MergeFrom(pb.GenerateRequest(**fields))  # type: ignore[arg-type]
    return request


def check_generation(events: list[pb.GenerationEvent]) -> None:
    kinds = [event.WhichOneof("kind") for event in events]
    assert kinds[0] == "accepted"
    assert {"progress", "preview"} <= set(kinds)
    assert kinds[-3:] == ["image", "chunk", "completed"]
    header, chunk = events[-3].image, events[-2].chunk
    assert (header.width, header.height, header.seed) == (96, 64, 5)
    assert chunk.data.startswith(b"\x89PNG")
    assert len(chunk.data) == header.size_bytes


def test_a_generation_by_grpc_web(envoy: Envoy) -> None:
    connection, response = web_call(envoy, "Generate", drawing().SerializeToString())
    with closing(connection):
        *frames, trailers = read_frames(response)
    check_generation([frame.event for frame in frames])
    assert trailers.flags == _TRAILERS
    assert b"grpc-status:0" in trailers.data
    assert b"x-cache:" in trailers.data


def test_a_generation_by_grpc_web_as_text(envoy: Envoy) -> None:
    body = base64.b64encode(pack(drawing().SerializeToString()))
    headers = {"content-type": "application/grpc-web-text", "accept": "application/grpc-web-text"}
    connection, response = call(envoy, "Generate", body, headers)
    with closing(connection):
        text = response.read()
    # Each flushed piece has its own padding.
    data = b"".join(base64.b64decode(piece) for piece in re.findall(rb"[^=]+=*", text))
    assert b"\x89PNG" in data
    assert b"grpc-status:0" in data


def test_a_generation_by_connect(envoy: Envoy) -> None:
    body = pack(drawing().SerializeToString())
    headers = {"content-type": "application/connect+proto"}
    connection, response = connect_call(envoy, "Generate", body, **headers)
    with closing(connection):
        assert response.headers["content-type"] == "application/connect+proto"
        *frames, end = read_frames(response)
    check_generation([frame.event for frame in frames])
    assert end.flags == _END_OF_STREAM
    assert "error" not in json.loads(end.data)


def test_a_browser_reads_events_as_they_come_and_cancels_by_leaving(envoy: Envoy) -> None:
    resets = envoy.count("cluster.safelight.upstream_rq_tx_reset")
    many = pb.TextToImageParameters(num_inference_steps=150, width=512, height=512)
    request = drawing(parameters=many)
    connection, response = web_call(envoy, "Generate", request.SerializeToString())
    frames = read_frames(response)
    assert next(frames).event.HasField("accepted")
    assert next(frames).event.progress.step == 1
    response.close()
    connection.close()
    gives_up_at = time.monotonic() + 10  # the generation would run for a minute
    while envoy.count("cluster.safelight.upstream_rq_tx_reset") == resets:
        assert time.monotonic() < gives_up_at


def test_errors_keep_their_details_by_grpc_web(envoy: Envoy) -> None:
    wrong = pb.TextToImageParameters(width=7, num_inference_steps=0)
    request = drawing(parameters=wrong)
    connection, response = web_call(envoy, "Generate", request.SerializeToString())
    with closing(connection):
        response.read()
    assert response.headers["grpc-status"] == "3"
    details = response.headers["grpc-status-details-bin"]
    assert details is not None
    padded = details + "=" * (-len(details) % 4)
    check_violations(status_pb2.Status.FromString(base64.b64decode(padded)))


def test_errors_by_connect_have_types_of_another_form(envoy: Envoy) -> None:
    wrong = pb.TextToImageParameters(width=7, num_inference_steps=0)
    body = pack(drawing(parameters=wrong).SerializeToString())
    headers = {"content-type": "application/connect+proto"}
    connection, response = connect_call(envoy, "Generate", body, **headers)
    with closing(connection):
        (end,) = read_frames(response)
    error = json.loads(end.data)["error"]
    assert error["code"] == "invalid_argument"
    # Connect's types are bare names, and connect-es finds these under no name of a message.
    assert {detail["type"] for detail in error["details"]} == {
        "type.googleapis.com/google.rpc.BadRequest",
        "type.googleapis.com/google.rpc.ErrorInfo",
    }


@pytest.mark.skipif(not IS_INSTALLED, reason="run scripts/install-gateway-clients first")
def test_connect_es_finds_the_details_by_grpc_web_alone(envoy: Envoy) -> None:
    request = {"parameters": {"width": 7}}
    web, connect = run_connect_es(
        [
            ConnectCall(protocol, f"http://{envoy.address}", request)
            for protocol in ("grpc-web", "connect+proto")
        ]
    )
    assert (web.code, web.reasons) == ("InvalidArgument", ["INVALID_REQUEST"])
    assert {*web.fields} == {"inputs", "parameters.width"}
    assert (connect.code, connect.reasons, connect.fields) == ("InvalidArgument", [], [])


def check_violations(status: status_pb2.Status) -> None:
    bad_request, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.reason == "INVALID_REQUEST"
    assert any(detail.Unpack(bad_request) for detail in status.details)
    fields = {violation.field for violation in bad_request.field_violations}
    assert fields == {"parameters.width", "parameters.num_inference_steps"}


def test_one_answer_by_connect(envoy: Envoy) -> None:
    headers = {"content-type": "application/proto"}
    connection, response = connect_call(envoy, "ListModels", b"", **headers)
    with closing(connection):
        models = pb.ListModelsResponse.FromString(response.read())
    assert [model.name for model in models.models] == ["shapes"]


def test_a_deadline_by_connect_reaches_the_service(envoy: Envoy) -> None:
    many = pb.TextToImageParameters(num_inference_steps=150, width=512, height=512)
    body = pack(drawing(parameters=many).SerializeToString())
    headers = {"content-type": "application/connect+proto", "connect-timeout-ms": "300"}
    connection, response = connect_call(envoy, "Generate", body, **headers)
    with closing(connection):
        *_, end = read_frames(response)
    assert json.loads(end.data)["error"]["code"] == "deadline_exceeded"


def test_connect_in_json_is_refused_as_what_the_service_cannot_read(envoy: Envoy) -> None:
    headers = {"content-type": "application/json"}
    connection, response = connect_call(envoy, "GetModel", b'{"model": "shapes"}', **headers)
    with closing(connection):
        error = json.load(response)
    assert (response.status, error["code"]) == (400, "invalid_argument")


def test_pages_of_other_origins_may_call(envoy: Envoy) -> None:
    connection = http.client.HTTPConnection(envoy.address, timeout=30)
    asked = "authorization,content-type,x-generation-id,x-grpc-web"
    headers = {
        "origin": "https://pages.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": asked,
    }
    with closing(connection):
        connection.request("OPTIONS", f"{SERVICE}/Generate", headers=headers)
        response = connection.getresponse()
        response.read()
    assert response.headers["access-control-allow-origin"] == "https://pages.example"
    allowed = response.headers["access-control-allow-headers"].split(", ")
    assert set(asked.split(",")) <= set(allowed)


def test_other_paths_are_not_there(envoy: Envoy) -> None:
    connection = http.client.HTTPConnection(envoy.address, timeout=30)
    with closing(connection):
        connection.request("GET", "/")
        assert connection.getresponse().status == 404


@pytest.mark.parametrize("protocol", ["grpc", "grpcweb", "connect"])
def test_buf_curl_by_every_protocol(envoy: Envoy, protocol: str) -> None:
    url = f"http://{envoy.address}{SERVICE}/GetModel"
    options = ["--protocol", protocol, "--schema", str(ROOT / "protos"), "--data", "{}"]
    if protocol == "grpc":
        options.append("--http2-prior-knowledge")
    command = [str(BIN / "buf"), "curl", *options, url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["model"]["name"] == "shapes"


@contextmanager
def one_of_two_is_killed(service: RunningService, folder: Path) -> Iterator[Envoy]:
    """Run Envoy with a replica that has been killed since its only health check."""

    def check_rarely(config: str) -> str:
        # Neither ends the first check early, which is not repeated, nor gives up a connection.
        rare, count = re.subn("(interval|timeout): 2s", r"\1: 600s", config)
        assert count == 4
        return rare

    with (
        run_service() as killed,
        run_envoy(folder, service.target, killed.target, edit=check_rarely) as envoy,
    ):
        gives_up_at = time.monotonic() + 60
        while envoy.count("cluster.safelight.membership_healthy") < 2:
            assert time.monotonic() < gives_up_at
        killed.process.kill()
        killed.process.wait()
        yield envoy


def test_what_has_not_begun_is_tried_at_another_replica(
    service: RunningService, tmp_path: Path
) -> None:
    """Fault 42: one of two replicas is killed."""
    with one_of_two_is_killed(service, tmp_path) as envoy:
        number = 0
        # Without an id, Envoy chooses a replica at random.
        while not envoy.count("cluster.safelight.upstream_rq_retry_success"):
            number += 1
            assert number < 40
            seed = pb.TextToImageParameters(seed=number)
            request = drawing(parameters=seed).SerializeToString()
            connection, response = web_call(envoy, "Generate", request)
            with closing(connection):
                *events, _trailers = read_frames(response)
                assert events[-1].event.HasField("completed")


@pytest.mark.slow
def test_no_call_about_a_generation_meets_a_killed_replica_only(
    service: RunningService, tmp_path: Path
) -> None:
    """Fault 42: retries of a call begin at the same place on the ring, which its id chooses."""
    with (
        one_of_two_is_killed(service, tmp_path) as envoy,
        grpc.insecure_channel(envoy.address) as channel,
    ):
        stub = pb_grpc.TextToImageServiceStub(channel)  # which retries nothing itself
        for number in range(CALLS):
            stub.GetModel(pb.GetModelRequest(), metadata=(("x-generation-id", str(number)),))
        assert envoy.count("cluster.safelight.upstream_rq_retry_success") > CALLS / 4


@contextmanager
def run_waiting_server(everybody: threading.Barrier) -> Iterator[tuple[grpc.Server, str]]:
    """Run a healthy server whose calls wait for each other; yield it and its address."""

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        everybody.wait(20)
        return request

    method: Any = grpc.unary_unary_rpc_method_handler(answer)
    handler = grpc.method_handlers_generic_handler(SERVICE[1:], {"GetModel": method})
    server = grpc.server(ThreadPoolExecutor(everybody.parties + 1))
    server.add_generic_rpc_handlers((handler,))
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait()


def test_all_calls_that_a_dead_replica_misses_wait_at_another_one(tmp_path: Path) -> None:
    """A retried call counts as a retry until its first message, and Envoy limits those to three."""
    everybody = threading.Barrier(20)
    with (
        run_waiting_server(everybody) as (_, alive),
        run_waiting_server(everybody) as (dead, address),
        run_envoy(tmp_path, alive, address) as envoy,
        grpc.insecure_channel(envoy.address) as channel,
    ):
        dead.stop(0).wait()
        get_model: Any = channel.unary_unary(f"{SERVICE}/GetModel")
        calls = [
            get_model.future(b"", timeout=20, metadata=(("x-generation-id", f"g{number}"),))
            for number in range(everybody.parties)
        ]
        assert [each.result() for each in calls] == [b""] * everybody.parties
        assert envoy.count("cluster.safelight.upstream_rq_retry_success") > 3


def test_cuts_behind_envoy_cost_neither_the_image_nor_a_second_generation(
    service: RunningService, tmp_path: Path
) -> None:
    """Fault 42: the client sees INTERNAL, and resumes."""
    request: dict[str, Any] = {"num_inference_steps": 40, "width": 64, "height": 64, "seed": 11}
    with (
        TcpProxy(service.target) as proxy,
        run_envoy(tmp_path, proxy.target) as envoy,
        Client(envoy.address) as client,
        client.generate("a red circle", **request) as generation,
    ):
        steps = []
        for event in generation:
            if isinstance(event, Progress):
                steps.append(event.step)
                if len(steps) <= 5:
                    proxy.cut()
            elif isinstance(event, Completed):
                completed = event
        [image] = generation.images()
        assert envoy.count("cluster.safelight.upstream_cx_destroy_remote_with_active_rq") >= 2
    assert steps == sorted({*steps})
    assert set(completed.batch_widths) == {1}  # nothing else ran alongside it
    with Client(service.target) as client, client.generate("a red circle", **request) as alone:
        assert alone.images()[0].data == image.data
