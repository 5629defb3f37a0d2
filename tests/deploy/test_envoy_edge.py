"""Envoy with the configuration for untrusted networks: what it passes, and what it stops."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safelight import Client
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from benchmarks.floods import frames
from safelight_service.core.tenant import Tenant
from safelight_service.grpc_server.tenants import find_tenant
from safelight_settings import TrustedProxies
from support.running_envoy import EDGE, Envoy, run_envoy
from support.running_service import RunningService
from support.unharmed import is_serving, wait_until

pytestmark = pytest.mark.skipif(not Envoy.is_installed(), reason="Envoy is not installed")

LIST_MODELS = f"{frames.CONTRACT}ListModels"
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-prefix", "x-real-ip")


@pytest.fixture(scope="module")
def edge(service: RunningService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    with run_envoy(tmp_path_factory.mktemp("edge"), service.target, config=EDGE) as running:
        yield running


@pytest.fixture(scope="module")
def channel(edge: Envoy) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(edge.address) as channel:
        yield channel


def connect(edge: Envoy, source: str) -> socket.socket:
    """Connect from an address of its own, so that the limits of others are not used up."""
    host, _, port = edge.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 30, source_address=(source, 0))
    connection.sendall(frames.PREFACE)
    return connection


def read_to_the_end(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        pass


def test_a_generation_passes_with_its_previews_and_metadata(edge: Envoy) -> None:
    with (
        Client(edge.address) as client,
        client.generate("a red circle", num_inference_steps=4, preview_every=1) as generation,
    ):
        kinds = {type(event).__name__ for event in generation}
    assert {"Accepted", "Progress", "Preview", "Image", "Completed"} <= kinds


def test_an_error_passes_with_its_details(channel: grpc.Channel) -> None:
    stub = pb_grpc.TextToImageServiceStub(channel)
    with pytest.raises(grpc.RpcError) as raised:
        stub.GetModel(pb.GetModelRequest(model="nothing"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "grpc-status-details-bin" in {each.key for each in raised.value.trailing_metadata()}


def test_health_checks_pass_and_endless_methods_do_not(channel: grpc.Channel) -> None:
    assert is_serving(channel)
    with pytest.raises(grpc.RpcError) as raised:
        next(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_rapid_resets_end_their_connection(edge: Envoy, channel: grpc.Channel) -> None:
    """Fault 43: the service sees few of them."""
    resets = frames.reset_streams(1, 100, frames.encode_headers(LIST_MODELS))
    with connect(edge, "127.0.0.3") as connection:
        connection.sendall(resets)
        read_to_the_end(connection)
    assert edge.count("edge.downstream_rq_too_many_premature_resets") == 1
    assert edge.count("cluster.safelight.upstream_rq_total") < 100
    assert is_serving(channel)


def test_an_address_that_calls_too_often_is_refused_and_no_other(
    edge: Envoy, channel: grpc.Channel
) -> None:
    block = frames.encode_headers(LIST_MODELS)
    before = edge.count("cluster.safelight.upstream_rq_total")
    for _ in range(4):
        with connect(edge, "127.0.0.4") as connection:
            for stream in range(1, 200, 2):
                connection.sendall(
                    frames.open_stream(stream, block) + frames.send_message(stream, b"")
                )
                connection.recv(1 << 16)
    assert edge.count("addresses.http_local_rate_limit.rate_limited") > 0
    assert edge.count("cluster.safelight.upstream_rq_total") - before < 400
    assert is_serving(channel)


def test_a_request_that_is_unfinished_or_too_long_never_reaches_the_service(
    edge: Envoy, channel: grpc.Channel
) -> None:
    began = edge.count("edge.downstream_rq_total")
    before = edge.count("cluster.safelight.upstream_rq_total")
    block = frames.encode_headers(LIST_MODELS)
    too_long = b"".join(frames.send_data(1, 16000) for _ in range(4))
    with connect(edge, "127.0.0.5") as unfinished, connect(edge, "127.0.0.6") as long:
        unfinished.sendall(frames.open_stream(1, block) + frames.begin_message(1, 100))
        long.sendall(frames.open_stream(1, block) + too_long)
        wait_until(
            channel,
            lambda: edge.count("edge.downstream_rq_total") - began,
            lambda count: count >= 2,
        )
        checks = edge.count("edge.downstream_rq_total") - began - 2
        assert edge.count("cluster.safelight.upstream_rq_total") - before <= checks


def test_a_stranger_cannot_speak_for_others(tmp_path: Path) -> None:
    """Envoy itself states their addresses, to a service that trusts it."""
    seen: list[Any] = []

    class Recorder(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> None:
            seen.extend(handler_call_details.invocation_metadata)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Recorder()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    claims = tuple((name, "192.0.2.1") for name in FORWARDED)
    with (
        run_envoy(tmp_path, f"127.0.0.1:{port}", config=EDGE) as edge,
        grpc.insecure_channel(edge.address) as channel,
    ):
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(LIST_MODELS)
        call = method.future(b"", metadata=(*claims, ("x-passed", "yes")))
        assert call.code() is grpc.StatusCode.UNIMPLEMENTED
    server.stop(None).wait()
    assert "yes" in [value for _, value in seen]
    assert "192.0.2.1" not in [value for _, value in seen]
    proxies = TrustedProxies(["127.0.0.9"])
    # Envoy replaces an address of the loopback by one of the machine.
    assert find_tenant(None, "ipv4:127.0.0.9:1", seen, proxies) != Tenant("127.0.0.9")


def test_the_commented_tls_serves_certificates(service: RunningService, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "tls").mkdir()
    certificate.private_key_pem.write_to_path(tmp_path / "tls/tls.key")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "tls/tls.crt")

    def uncomment(config: str) -> str:
        config, count = re.subn(r"(?m)^(          )# (transport_socket|  )", r"\1\2", config)
        assert count == 10
        return config.replace("filename: tls/", f"filename: {tmp_path}/tls/")

    with run_envoy(tmp_path, service.target, config=EDGE, edit=uncomment) as edge:
        credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
        with grpc.secure_channel(edge.address, credentials) as channel:
            assert is_serving(channel)
