"""Floods: connections that send or read too little, or too much, harm only themselves."""

import json
import logging
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from support.running_gateway import RunningGateway, run_gateway
from tests.gateway.failing_service import ENDLESS, FailingService
from tests.gateway.raw_connection import (
    PARTIAL_HEAD,
    WHOLE,
    connected,
    post,
    read_status,
    read_to_the_end,
)

OTHER = "127.0.0.2"


@pytest.fixture(scope="module")
def patient_gateway() -> Iterator[RunningGateway]:
    """A gateway with low limits on numbers and usual ones on time."""
    limits = {"max_per_address": 4, "max_bodies_mib": 1}
    with run_gateway("127.0.0.1:1", trusted_proxies=(), connections=limits) as running:
        yield running


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", [408]),
        (PARTIAL_HEAD, [408]),
        (post(100) + b"{", [408]),
        (WHOLE, [200]),
        (WHOLE + PARTIAL_HEAD, [200, 408]),
        (WHOLE + post(100) + b"{", [200, 408]),
        (post(10, "/healthz") + b"{", [405]),
        (b"garbage\r\n\r\n", [400]),
        (WHOLE + b"garbage\r\n\r\n", [200, 400]),
        (post(0) + b"\x16\x03\x01" * 9, [400, 400]),
    ],
)
def test_time_for_a_request_is_limited(
    sent: bytes, statuses: list[int], guarded_gateway: RunningGateway
) -> None:
    with connected(guarded_gateway.url) as connection:
        connection.sendall(sent)
        received = read_to_the_end(connection)
    found = re.findall(rb"HTTP/1\.1 (\d{3})(.*?)\r\n\r\n", received, re.DOTALL)
    assert [int(status) for status, _ in found] == statuses
    assert all(b"x-content-type-options: nosniff" in head for _, head in found)


def test_a_request_with_two_lengths_is_refused_and_nothing_after_it_is_read(
    guarded_gateway: RunningGateway,
) -> None:
    for version in ("1.1", "1.0"):
        length = "Content-Length: 4\r\n" if version == "1.1" else ""
        head = f"POST /v1/generate HTTP/{version}\r\nHost: a\r\n{length}"
        with connected(guarded_gateway.url) as connection:
            chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            connection.sendall(chunked.encode() + WHOLE)
            received = read_to_the_end(connection)
        assert received.startswith(b"HTTP/1.1 400 ")
        assert received.count(b"HTTP/1.1 ") == 1


def test_an_address_has_its_share_of_connections(patient_gateway: RunningGateway) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(connected(patient_gateway.url)) for _ in range(4)]
        with connected(patient_gateway.url) as refused:
            assert read_to_the_end(refused).startswith(b"HTTP/1.1 429 ")
        with connected(patient_gateway.url, OTHER) as other:
            other.sendall(WHOLE)
            assert read_status(other) == 200
        assert all(connection.fileno() for connection in held)


def test_idle_connections_make_room_for_a_newcomer() -> None:
    limits = {"max_count": 4, "max_per_address": 1}
    with (
        run_gateway("127.0.0.1:1", trusted_proxies=(), connections=limits) as gateway,
        ExitStack() as stack,
    ):

        def connect(number: int) -> socket.socket:
            return stack.enter_context(connected(gateway.url, f"127.0.0.{number}"))

        busy = [connect(number) for number in (10, 11)]
        idle = [connect(number) for number in (12, 13)]
        for connection in idle:
            connection.sendall(WHOLE)
            assert read_status(connection) == 200
        newcomers = [connect(number) for number in (14, 15, 16)]
        for connection, status in zip(newcomers, (200, 200, 429), strict=True):
            connection.sendall(WHOLE)
            assert read_status(connection) == status
        assert [read_status(connection) for connection in idle] == [0, 0]
        for connection in busy:
            connection.sendall(WHOLE)
            assert read_status(connection) == 200


def test_requests_do_not_pile_up_behind_a_proxy() -> None:
    """Its connections are exempt from limits, so one of its clients can have any number."""
    client = WHOLE.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
    with (
        run_gateway("127.0.0.1:1", connections={"requests_per_s": 0.01}) as gateway,
        connected(gateway.url) as connection,
    ):
        statuses = []
        for request in [client] * 21 + [WHOLE]:
            connection.sendall(request)
            statuses.append(read_status(connection))
    assert statuses == [200] * 20 + [429, 200]


def test_bodies_share_a_bounded_memory(patient_gateway: RunningGateway) -> None:
    """One address fills at most half of the memory, so another has room."""
    size = 500 * 1024
    with connected(patient_gateway.url) as first, connected(patient_gateway.url) as second:
        first.sendall(post(size + 1) + bytes(size))
        second.sendall(post(size + 1) + bytes(size))
        answered = select.select([first, second], [], [], 20)[0]
        assert [read_status(connection) for connection in answered] == [429]
    with connected(patient_gateway.url, OTHER) as other:
        other.sendall(post(size) + bytes(size))
        assert read_status(other) == 400  # read whole; it is not JSON


def test_a_client_that_reads_nothing_is_cut_off(
    guarded_gateway: RunningGateway, failing_service: FailingService
) -> None:
    """The playground is larger than a receive buffer; so are all answers to a pipeline."""
    with connected(guarded_gateway.url, receive_bytes=4096) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 200)
        for _ in range(6):  # each lasts longer than the first may stall
            with connected(guarded_gateway.url) as other:
                other.sendall(WHOLE)
                assert read_to_the_end(other).startswith(b"HTTP/1.1 200 ")
        received = read_to_the_end(connection)
    assert received.count(b"HTTP/1.1 200 ") < 200


def test_an_unfinished_handshake_ends(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(issued.cert_chain_pems[0].bytes())
    key.write_bytes(issued.private_key_pem.bytes())
    with (
        run_gateway(
            "127.0.0.1:1", certificate=certificate, key=key, connections={"head_s": 0.1}
        ) as gateway,
        connected(gateway.url) as connection,
    ):
        assert read_to_the_end(connection) == b""


def test_calls_of_one_address_beyond_its_share_are_refused_in_its_dialect(
    guarded_gateway: RunningGateway, failing_service: FailingService
) -> None:
    body = json.dumps({"inputs": "x", "model": ENDLESS}).encode()
    failing_service.peers.clear()
    with ExitStack() as stack:
        for _ in range(2):
            stream = stack.enter_context(connected(guarded_gateway.url))
            stream.sendall(post(len(body)) + body)
            assert read_status(stream) == 200
        assert len({*failing_service.peers}) == 2  # a connection to the service for each
        for path, key in (("/v1/generate", b'"reason"'), ("/v1/images/generations", b'"code"')):
            with connected(guarded_gateway.url) as refused:
                refused.sendall(post(len(body), path) + body)
                answer = read_to_the_end(refused)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 1\r\n" in answer
            assert key in answer
        with connected(guarded_gateway.url, OTHER) as other:
            other.sendall(post(len(body)) + body)
            assert read_status(other) == 200


@pytest.mark.parametrize("sent", [post(100) + b"{", WHOLE + b"\0" * 99, post(9) + b"{" + WHOLE])
def test_what_clients_send_is_no_failure_of_the_gateway(
    sent: bytes, failing_gateway: RunningGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            with connected(failing_gateway.url) as connection:
                connection.sendall(sent)
        with connected(failing_gateway.url) as connection:
            connection.sendall(WHOLE)
            assert read_status(connection) == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
