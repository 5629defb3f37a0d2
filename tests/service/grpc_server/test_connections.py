"""Limits on connections and open calls of a caller, by a service with low ones."""

import socket
from collections.abc import Iterator

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from support.running_service import RunningService, run_service
from support.unharmed import is_serving, unharmed
from tests.service.grpc_server.h2_client import METHOD, H2Client, frame_message

CHECK = "/grpc.health.v1.Health/Check"
LIMITS = '{"max_calls_per_caller": 2, "request_s": 0.3, "handshake_s": 0.3, "idle_s": 0.5}'


@pytest.fixture(scope="module")
def limited() -> Iterator[RunningService]:
    with run_service(connections=LIMITS) as running:
        yield running


def reason_of(error: grpc.RpcError) -> str:
    info = error_details_pb2.ErrorInfo()
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    assert status.details[0].Unpack(info)
    return str(info.reason)


def test_calls_beyond_those_of_a_caller_are_refused_except_health_checks(
    limited: RunningService,
) -> None:
    with unharmed(limited), grpc.insecure_channel(limited.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())  # at least one is allowed
        next(watch)
        for _ in range(3):
            with pytest.raises(grpc.RpcError) as raised:
                next(health.Watch(health_pb2.HealthCheckRequest()))
            assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert reason_of(raised.value) == "TOO_MANY_CALLS"
            assert is_serving(channel)
        watch.cancel()
    lines = [line for line in limited.read_log().splitlines() if "calls_refused" in line]
    assert len(lines) == 1  # for all three


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHECK, b""), (CHECK, frame_message(b"", size=9)), (f"{METHOD}Generate", b"")],
    ids=["a check", "an unfinished check", "a generation"],
)
def test_a_request_that_does_not_arrive_ends_its_call(
    path: str, body: bytes, limited: RunningService
) -> None:
    with H2Client(limited.target) as raw:
        stream = raw.send(b"", path)
        if body:
            raw.connection.send_data(stream, body)
            raw.flush()
        metadata = raw.read_metadata(stream)
    assert metadata["grpc-status"] == str(grpc.StatusCode.DEADLINE_EXCEEDED.value[0])
    assert "0.3 seconds" in metadata["grpc-message"]


def test_a_call_without_a_request_is_refused(limited: RunningService) -> None:
    with H2Client(limited.target) as raw:
        stream = raw.send(b"", f"{METHOD}ListModels")
        raw.connection.end_stream(stream)
        raw.flush()
        metadata = raw.read_metadata(stream)
    assert metadata["grpc-status"] == str(grpc.StatusCode.INVALID_ARGUMENT.value[0])


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_malformed_health_check_is_refused_without_the_text_of_an_exception(
    method: str, limited: RunningService
) -> None:
    with grpc.insecure_channel(limited.target) as channel:
        call: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(
            f"/grpc.health.v1.Health/{method}"
        )
        with pytest.raises(grpc.RpcError) as raised:
            next(call(b"\x0a\xff"))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(raised.value) == "INVALID_REQUEST"


@pytest.mark.parametrize("beginning", [b"", b"PRI * HTTP/2.0\r\n"], ids=["silent", "half"])
def test_a_connection_that_does_not_begin_is_closed(
    beginning: bytes, limited: RunningService
) -> None:
    host, _, port = limited.target.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(beginning)
        while connection.recv(1024):
            pass  # the service's own frames, then the end


def test_a_connection_without_calls_is_closed(limited: RunningService) -> None:
    with H2Client(limited.target) as raw, pytest.raises(ConnectionError):
        list(iter(raw.read, None))
