"""Abuse: malformed bytes, floods and idle connections leave the service unharmed."""

import contextlib
import random
import socket
import zlib
from collections.abc import Iterator

import grpc
import pytest
from grpc_health.v1 import health_pb2
from h2.errors import ErrorCodes
from h2.events import StreamReset
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.settings import ConnectionSettings
from support.running_service import RunningService
from support.unharmed import CONTROL, is_serving, make_control, unharmed
from tests.conftest import MAX_CONNECTIONS
from tests.service.grpc_server.h2_client import HEADERS, METHOD, H2Client, frame_message

MIB = 1024 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
IDLE, HALF_OPEN = 500, 200


def bomb(size_mib: int) -> bytes:
    """Compress some MiB of zeros with gzip."""
    gzip = zlib.compressobj(wbits=31)
    return b"".join(gzip.compress(bytes(MIB)) for _ in range(size_mib)) + gzip.flush()


def code_of(metadata: dict[str, str]) -> grpc.StatusCode:
    return next(c for c in grpc.StatusCode if str(c.value[0]) == metadata["grpc-status"])


def call_raw(channel: grpc.Channel, method: str, request: bytes) -> grpc.StatusCode:
    """Send bytes as a request, read the answer to the end, and return the status."""
    calls: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(method)
    call = calls(request)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    code: grpc.StatusCode = call.code()
    return code


@pytest.mark.parametrize(
    ("body", "metadata"),
    [
        (frame_message(pb.GenerateRequest(inputs="x" * 4 * MIB).SerializeToString()), {}),
        (frame_message(b"short", size=2**32 - 1), {}),
        (frame_message(bomb(128), is_compressed=True), {"grpc-encoding": b"gzip"}),
    ],
    ids=["more than 4 MiB", "a length that is a lie", "a gzip bomb"],
)
def test_a_message_that_is_too_large_is_refused_without_being_held(
    body: bytes, metadata: dict[str, bytes], service: RunningService
) -> None:
    """Fault 5: RESOURCE_EXHAUSTED, by gRPC's core."""
    with unharmed(service), H2Client(service.target) as raw:
        stream = raw.send(body, metadata=metadata)
        assert code_of(raw.read_metadata(stream)) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_ends_early_holds_nothing_up(service: RunningService) -> None:
    """Fault 5: a wrong length within the limit; gRPC waits for the rest."""
    with unharmed(service) as stub, H2Client(service.target) as raw:
        raw.send(frame_message(b"short", size=100))
        make_control(stub)


@pytest.mark.parametrize(
    "request_",
    [b"\x00\x00", b"\x0b", b"\x0a\xff", b"\x0a\x02\xff\xff", b"\x07", b"\xff" * 11],
    ids=["field 0", "open group", "cut off", "not UTF-8", "no wire type", "endless number"],
)
def test_bytes_that_are_no_request_are_an_invalid_argument(
    request_: bytes, service: RunningService
) -> None:
    """Fault 6: INVALID_ARGUMENT, never UNKNOWN or INTERNAL."""
    with grpc.insecure_channel(service.target) as channel:
        code = call_raw(channel, f"{METHOD}Generate", request_)
        assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("field", [b"\xa2\x06\x03abc", b"\xa3\x06\xa4\x06"], ids=["bytes", "group"])
def test_fields_of_a_newer_contract_are_refused(field: bytes, service: RunningService) -> None:
    """Fault 6: INVALID_ARGUMENT by each method of the contract; health checks ignore them."""
    health = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/Check"
    with grpc.insecure_channel(service.target) as channel:
        request = CONTROL.SerializeToString() + field
        for method in ("Generate", "WatchGeneration", "CancelGeneration", "ListModels"):
            raw = request if method == "Generate" else field
            code = call_raw(channel, f"{METHOD}{method}", raw)
            assert code is grpc.StatusCode.INVALID_ARGUMENT, method
        assert call_raw(channel, health, field) is grpc.StatusCode.OK


@pytest.mark.parametrize("method", [f"{METHOD}Nothing", "/safelight.v1.Nothing/Generate", "/"])
def test_a_method_that_does_not_exist_is_unimplemented(
    method: str, service: RunningService
) -> None:
    """Fault 7: UNIMPLEMENTED."""
    with grpc.insecure_channel(service.target) as channel:
        assert call_raw(channel, method, b"") is grpc.StatusCode.UNIMPLEMENTED


def test_calls_beyond_those_that_a_connection_may_hold_are_refused(
    service: RunningService,
) -> None:
    """Fault 43: with many pending calls, gRPC drops calls of other connections."""
    with unharmed(service), H2Client(service.target) as raw:
        streams = [raw.send(b"") for _ in range(ConnectionSettings().max_stream_count + 1)]
        reset = next(event for event in iter(raw.read, None) if isinstance(event, StreamReset))
        assert reset.stream_id == streams[-1]
        # Before and after the client acknowledges the limit.
        assert reset.error_code in {ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.REFUSED_STREAM}


def rapid_resets(count: int) -> Iterator[Frame]:
    encoder = Encoder()
    headers = list(HEADERS.items())
    for stream in range(1, 2 * count, 2):
        yield HeadersFrame(stream, encoder.encode(headers), flags=["END_HEADERS"])
        yield RstStreamFrame(stream)


def endless_headers(count: int) -> Iterator[Frame]:
    yield HeadersFrame(1, Encoder().encode(list(HEADERS.items())))
    yield from (ContinuationFrame(1, bytes(16384)) for _ in range(count))


FLOODS = {
    "rapid reset": PREFACE + b"".join(frame.serialize() for frame in rapid_resets(2000)),
    "pings": PREFACE + PingFrame(0, b"8 bytes.").serialize() * 10_000,
    "settings": PREFACE + SettingsFrame(0, {1: 4096}).serialize() * 10_000,
    "continuations": PREFACE + b"".join(frame.serialize() for frame in endless_headers(1000)),
    "garbage after the preface": PREFACE + random.Random(0).randbytes(MIB),
    "garbage": random.Random(0).randbytes(MIB),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_delays_no_other_caller(flood: str, service: RunningService) -> None:
    """Fault 43: GOAWAY, or ignored; health checks succeed during the flood."""
    with unharmed(service), grpc.insecure_channel(service.target) as channel:
        host, _, port = service.target.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=60) as flooding:
            with contextlib.suppress(ConnectionError):
                flooding.sendall(FLOODS[flood])
            assert is_serving(channel)


def test_connections_beyond_the_limit_are_closed_and_the_others_served(
    service: RunningService,
) -> None:
    """Fault 44: 500 idle and 200 half-open connections; earlier connections still work."""
    host, _, port = service.target.rpartition(":")
    with unharmed(service) as stub, contextlib.ExitStack() as connections:
        before = service.read_usage().descriptor_count
        for _ in range(IDLE):
            with contextlib.suppress(ConnectionError):
                connections.enter_context(H2Client(service.target))
        for _ in range(HALF_OPEN):
            connections.enter_context(socket.create_connection((host, int(port))))
        make_control(stub)
        assert service.read_usage().descriptor_count < before + MAX_CONNECTIONS
