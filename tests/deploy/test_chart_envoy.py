"""The chart's Envoy: a real one accepts its configuration, and calls pass both TLS hops."""

import asyncio
import contextlib
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from ruamel.yaml import YAML

from safelight_service.grpc_server.tls import server_credentials
from safelight_service.settings import TlsSettings
from support.deploy.chart import EXAMPLES, HELM, ROOT, find, render_example
from support.running_envoy import Envoy

PROGRAM = Path(sys.executable).parent / "envoy"
AUTHORITY = trustme.CA()
SERVICE = "safelight.v1.TextToImageService"
REPLICAS = "test-safelight-replicas.images.svc.cluster.local"

pytestmark = [
    pytest.mark.skipif(not HELM.exists(), reason="Helm is not installed"),
    pytest.mark.skipif(not Envoy.is_installed(), reason="Envoy is not installed"),
]


def write_files(folder: Path, example: str, **ports: int) -> Path:
    """Write what the container finds in /etc/envoy, with other ports; return the folder."""
    (folder / "config").mkdir()
    for name, text in read_files(example).items():
        moved = text.replace("/etc/envoy", str(folder)).replace("0.0.0.0", "127.0.0.1")
        for old, new in ports.items():
            moved = re.sub(rf"\b{old.removeprefix('p')}\b", str(new), moved)
        (folder / "config" / name).write_text(moved)
    for name in ("callers-tls", "replicas-tls"):
        write_secret(folder / name)
    return folder


def write_secret(folder: Path) -> None:
    folder.mkdir()
    issued = AUTHORITY.issue_cert(REPLICAS, "localhost")
    (folder / "tls.crt").write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    (folder / "tls.key").write_bytes(issued.private_key_pem.bytes())
    (folder / "ca.crt").write_bytes(AUTHORITY.cert_pem.bytes())


def read_files(example: str) -> dict[str, str]:
    manifest = find(render_example(example), "ConfigMap", "test-safelight-envoy")
    return dict(manifest["data"])


def read_config(example: str) -> Any:
    return YAML(typ="safe").load(read_files(example)["envoy.yaml"])["static_resources"]


@pytest.mark.parametrize("example", [name for name in EXAMPLES if name != "single"])
def test_envoy_accepts_its_configuration(example: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path, example)
    command = [str(PROGRAM), "--mode", "validate", "--log-level", "warning"]
    command += ["--config-path", str(folder / "config" / "envoy.yaml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "deprecated" not in result.stderr.lower()


def test_replicas_are_chosen_by_the_id_of_the_generation_and_by_health() -> None:
    config = read_config("minimal")
    replicas = config["clusters"][0]
    assert replicas["lb_policy"] == "RING_HASH"
    [check] = replicas["health_checks"]
    assert check["grpc_health_check"] == {}
    [endpoint] = replicas["load_assignment"]["endpoints"][0]["lb_endpoints"]
    address = endpoint["endpoint"]["address"]["socket_address"]
    assert address == {"address": REPLICAS, "port_value": 50051}
    for route in routes_of(config):
        assert route["hash_policy"] == [{"header": {"header_name": "x-generation-id"}}]


def test_the_service_receives_the_addresses_of_callers() -> None:
    [chain] = read_config("minimal")["listeners"][0]["filter_chains"]
    assert chain["filters"][0]["typed_config"]["use_remote_address"] is True


def test_routes_and_retries_are_those_of_the_repository() -> None:
    ours = YAML(typ="safe").load(ROOT / "deploy" / "envoy.yaml")["static_resources"]
    charts = read_config("everything")
    for shipped, charted in zip(routes_of(ours), routes_of(charts), strict=True):
        assert charted == shipped


def routes_of(config: Any) -> list[dict[str, Any]]:
    """Return the actions of the first listener's routes."""
    [chain] = config["listeners"][0]["filter_chains"]
    manager = chain["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    return [route["route"] for route in host["routes"]]


@contextlib.asynccontextmanager
async def serve_health(folder: Path) -> AsyncIterator[int]:
    """Run a server for clients with certificates that answers health checks; yield its port."""
    settings = TlsSettings(
        certificate=folder / "tls.crt",
        private_key=folder / "tls.key",
        client_authorities=folder / "ca.crt",
    )
    server, servicer = grpc.aio.server(), health.HealthServicer()
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(settings))
    await server.start()
    yield port
    await server.stop(None)


@contextlib.contextmanager
def run_envoy(config: Path) -> Iterator[None]:
    command = [str(PROGRAM), "--config-path", str(config), "--concurrency", "1"]
    command += ["--disable-hot-restart", "--log-level", "info"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            log = ""
            while "starting main dispatch loop" not in log:
                line = process.stderr.readline()
                assert line, f"Envoy did not start:\n{log}"
                log += line
            yield
        finally:
            process.kill()


def find_ports(count: int) -> list[int]:
    """Return ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.asynccontextmanager
async def serve_name(name: bytes) -> AsyncIterator[tuple[int, health.HealthServicer]]:
    """Run a replica whose every answer is its name; yield its port and its health."""
    server, servicer = grpc.aio.server(), health.HealthServicer()

    async def answer(_request: bytes, _context: Any) -> bytes:
        return name

    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    generic = grpc.method_handlers_generic_handler(SERVICE, {"GetModel": handler})
    server.add_generic_rpc_handlers((generic,))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port, servicer
    await server.stop(None)


async def ask_names(entry: int, ids: range) -> list[bytes]:
    """Return the names of the replicas that answer calls with these ids."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{entry}") as channel:
        call: Any = channel.unary_unary(f"/{SERVICE}/GetModel")
        options: dict[str, Any] = {"wait_for_ready": True, "timeout": 20}
        return [
            await call(b"", metadata=[("x-generation-id", str(each))], **options) for each in ids
        ]


def test_calls_with_the_same_id_reach_the_same_healthy_replica(tmp_path: Path) -> None:
    async def run() -> None:
        entry, admin, status = find_ports(3)
        async with serve_name(b"a") as (first, health_of_a), serve_name(b"b") as (second, _):
            ports = {"p8081": entry, "p9901": admin, "p9902": status}
            file = write_files(tmp_path, "minimal", **ports) / "config" / "envoy.yaml"
            config = YAML(typ="safe").load(file)
            replicas = config["static_resources"]["clusters"][0]
            [check] = replicas["health_checks"]
            assert check["interval"] == check["no_traffic_interval"] == "2s"
            check["interval"] = check["no_traffic_interval"] = "0.05s"
            [endpoints] = replicas["load_assignment"]["endpoints"]
            addresses = [{"address": "127.0.0.1", "port_value": each} for each in (first, second)]
            endpoints["lb_endpoints"] = [
                {"endpoint": {"address": {"socket_address": each}}} for each in addresses
            ]
            file.write_text(json.dumps(config))
            with run_envoy(file):
                ids = range(30)
                gives_up_at = time.monotonic() + 10
                while len(set(await ask_names(entry, ids))) < 2:  # Envoy has not yet seen both
                    assert time.monotonic() < gives_up_at
                names = await ask_names(entry, ids)
                assert await ask_names(entry, ids) == names
                await health_of_a.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
                gives_up_at = time.monotonic() + 10
                while set(await ask_names(entry, ids)) != {b"b"}:
                    assert time.monotonic() < gives_up_at

    asyncio.run(run())


def test_calls_pass_both_tls_hops_and_a_drain_waits_for_them(tmp_path: Path) -> None:
    async def run() -> None:
        write_secret(tmp_path / "replica")
        async with serve_health(tmp_path / "replica") as replica:
            entry, admin, status = find_ports(3)
            ports = {"p50051": replica, "p8081": entry, "p9901": admin, "p9902": status}
            folder = write_files(tmp_path, "everything", **ports) / "config"
            config = folder / "envoy.yaml"
            address = f"address: {REPLICAS}"
            assert address in config.read_text()
            config.write_text(config.read_text().replace(address, "address: 127.0.0.1"))
            with run_envoy(config):
                await watch_while_draining(entry, folder / "drain.sh")
                await asyncio.to_thread(check_status, status)

    asyncio.run(run())


def check_status(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready") as answer:
        assert answer.read() == b"LIVE\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/config_dump")


async def watch_while_draining(entry: int, script: Path) -> None:
    credentials = grpc.ssl_channel_credentials(AUTHORITY.cert_pem.bytes())
    async with grpc.aio.secure_channel(f"localhost:{entry}", credentials) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        drain = await asyncio.create_subprocess_exec("bash", str(script), "30", "0")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(drain.wait(), 0.5)
        assert not watch.done()
        watch.cancel()
        assert await drain.wait() == 0
