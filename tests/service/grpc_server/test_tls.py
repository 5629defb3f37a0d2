"""TLS: accepted clients, and certificates that change while the service runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from safelight import Client, ServiceUnavailableError, Tls

from safelight_service.grpc_server.tls import server_credentials
from safelight_service.settings import ConfigurationError, TlsSettings
from support.running_service import run_service

OURS, THEIRS = trustme.CA(), trustme.CA()


def write_pair(folder: Path, authority: trustme.CA = OURS) -> TlsSettings:
    """Write a certificate for localhost and its key."""
    issued = authority.issue_cert("localhost", "127.0.0.1")
    settings = TlsSettings(certificate=folder / "cert.pem", private_key=folder / "key.pem")
    settings.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    settings.private_key.write_bytes(issued.private_key_pem.bytes())
    return settings


def write_authorities(folder: Path, settings: TlsSettings) -> TlsSettings:
    """Write the authority whose certificates clients must have."""
    file = folder / "authorities.pem"
    file.write_bytes(OURS.cert_pem.bytes())
    return settings.model_copy(update={"client_authorities": file})


def identity(authority: trustme.CA) -> Tls:
    """Credentials of a client that trusts the service and has a certificate of the authority."""
    issued = authority.issue_cert("client.example")
    return Tls(
        root_certificates=OURS.cert_pem.bytes(),
        private_key=issued.private_key_pem.bytes(),
        certificate_chain=issued.cert_chain_pems[0].bytes(),
    )


@asynccontextmanager
async def serve_health(settings: TlsSettings) -> AsyncIterator[str]:
    """Run a server that answers health checks only."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", server_credentials(settings))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(None)


async def is_trusted(target: str, authority: trustme.CA) -> bool:
    """Whether a client that trusts only this authority can connect."""
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(target, credentials, options) as channel:
        try:
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
    return True


def test_only_clients_with_a_certificate_of_ours_are_let_in(tmp_path: Path) -> None:
    """Fault 45: plaintext, no client certificate, or a foreign one is UNAVAILABLE."""
    tls = write_authorities(tmp_path, write_pair(tmp_path))
    strangers = (False, Tls(root_certificates=OURS.cert_pem.bytes()), identity(THEIRS))
    with run_service(tls=tls.model_dump_json()) as service:
        with Client(service.target, tls=identity(OURS)) as client:
            assert [model.name for model in client.list_models()] == ["shapes"]
        for stranger in strangers:
            with (
                Client(service.target, tls=stranger) as client,
                pytest.raises(ServiceUnavailableError),
            ):
                client.list_models()


def test_without_authorities_no_client_certificate_is_asked_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with serve_health(write_pair(tmp_path)) as target:
            assert await is_trusted(target, OURS)
            assert not await is_trusted(target, THEIRS)

    asyncio.run(run())


def test_a_new_certificate_is_shown_to_the_next_connection(tmp_path: Path) -> None:
    """Fault 45: a new certificate without a restart; open connections stay."""

    async def run() -> None:
        async with serve_health(write_pair(tmp_path)) as target:
            credentials = grpc.ssl_channel_credentials(OURS.cert_pem.bytes())
            async with grpc.aio.secure_channel(target, credentials) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                await stub.Check(health_pb2.HealthCheckRequest())
                write_pair(tmp_path, THEIRS)
                assert await is_trusted(target, THEIRS)
                assert not await is_trusted(target, OURS)
                await stub.Check(health_pb2.HealthCheckRequest())

    asyncio.run(run())


def test_a_half_written_pair_leaves_the_old_one_in_force(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run() -> None:
        settings = write_pair(tmp_path)
        async with serve_health(settings) as target:
            settings.certificate.write_text("-----BEGIN CERTIFICATE-----\n")
            assert await is_trusted(target, OURS)
            assert await is_trusted(target, OURS)
            issued = THEIRS.issue_cert("localhost", "127.0.0.1")
            settings.certificate.write_bytes(issued.cert_chain_pems[0].bytes())
            assert await is_trusted(target, OURS)
            settings.private_key.unlink()
            assert await is_trusted(target, OURS)
            settings.private_key.write_bytes(issued.private_key_pem.bytes())
            assert await is_trusted(target, THEIRS)

    asyncio.run(run())
    assert "".join(capfd.readouterr()).count("reload_failed") == 3


@pytest.mark.parametrize("name", ["certificate", "private_key", "client_authorities"])
def test_a_missing_file_is_an_error_that_names_the_setting(name: str, tmp_path: Path) -> None:
    tls = write_authorities(tmp_path, write_pair(tmp_path))
    getattr(tls, name).unlink()
    with pytest.raises(ConfigurationError, match=rf"^tls\.{name}: cannot read .*\.pem: No such"):
        server_credentials(tls)


@pytest.mark.parametrize("name", ["certificate", "private_key", "client_authorities"])
def test_a_file_that_is_not_pem_is_an_error_that_names_the_setting(
    name: str, tmp_path: Path
) -> None:
    tls = write_authorities(tmp_path, write_pair(tmp_path))
    getattr(tls, name).write_text("canary")
    with pytest.raises(ConfigurationError, match=rf"^tls.*{name}.* must be") as raised:
        server_credentials(tls)
    assert "canary" not in str(raised.value)


def test_a_key_of_another_certificate_is_an_error(tmp_path: Path) -> None:
    tls = write_pair(tmp_path)
    tls.private_key.write_bytes(OURS.issue_cert("other.example").private_key_pem.bytes())
    with pytest.raises(ConfigurationError, match="must be PEM files that belong together"):
        server_credentials(tls)


def test_a_missing_file_stops_the_start(tmp_path: Path) -> None:
    tls = write_pair(tmp_path)
    tls.private_key.unlink()
    with (
        pytest.raises(AssertionError, match=r"safelight-service: tls\.private_key: cannot read"),
        run_service(tls=tls.model_dump_json()),
    ):
        pass
