"""The probe of container engines, at servers with TLS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

from safelight_service.grpc_server.probe import is_serving
from safelight_service.grpc_server.tls import server_credentials
from safelight_service.settings import TlsSettings

AUTHORITY = trustme.CA()
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def write_secret(folder: Path, *names: str) -> Path:
    """Write the files of a TLS secret of Kubernetes."""
    folder.mkdir()
    issued = AUTHORITY.issue_cert(*names)
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    (folder / "tls.crt").write_bytes(chain)
    (folder / "tls.key").write_bytes(issued.private_key_pem.bytes())
    (folder / "ca.crt").write_bytes(AUTHORITY.cert_pem.bytes())
    return folder


@asynccontextmanager
async def serve_health(
    secret: Path, status: int, *, for_clients_with_certificates: bool = False
) -> AsyncIterator[str]:
    settings = TlsSettings(
        certificate=secret / "tls.crt",
        private_key=secret / "tls.key",
        client_authorities=secret / "ca.crt" if for_clients_with_certificates else None,
    )
    server, servicer = grpc.aio.server(), health.HealthServicer()
    await servicer.set("", status)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(settings))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


@pytest.mark.parametrize("names", [["replicas.svc"], ["*.svc", "other"], ["10.0.0.7"]])
@pytest.mark.parametrize("for_clients_with_certificates", [False, True])
def test_a_certificate_need_not_name_the_address_of_the_probe(
    tmp_path: Path, names: list[str], for_clients_with_certificates: bool
) -> None:
    async def run() -> None:
        secret = write_secret(tmp_path / "tls", *names)
        options = {"for_clients_with_certificates": for_clients_with_certificates}
        async with serve_health(secret, SERVING, **options) as target:
            assert await asyncio.to_thread(is_serving, target, secret)

    asyncio.run(run())


def test_a_server_that_drains_is_not_serving(tmp_path: Path) -> None:
    async def run() -> None:
        secret = write_secret(tmp_path / "tls", "replicas.svc")
        async with serve_health(secret, NOT_SERVING) as target:
            assert not await asyncio.to_thread(is_serving, target, secret)

    asyncio.run(run())


def test_another_certificate_of_the_same_authority_is_not_trusted(tmp_path: Path) -> None:
    async def run() -> None:
        shown = write_secret(tmp_path / "shown", "replicas.svc")
        expected = write_secret(tmp_path / "expected", "replicas.svc")
        async with serve_health(shown, SERVING) as target:
            assert not await asyncio.to_thread(is_serving, target, expected)

    asyncio.run(run())


def test_a_server_without_tls_or_none_at_all_is_not_serving(tmp_path: Path) -> None:
    async def run() -> None:
        secret = write_secret(tmp_path / "tls", "replicas.svc")
        server = grpc.aio.server()
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        assert not await asyncio.to_thread(is_serving, f"127.0.0.1:{port}", secret)
        await server.stop(None)
        assert not await asyncio.to_thread(is_serving, f"127.0.0.1:{port}", secret)

    asyncio.run(run())
