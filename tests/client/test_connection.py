"""The connection: the token, the metadata, TLS and what is refused before any call."""

import shutil
from pathlib import Path
from subprocess import run

import grpc
import pytest
import safelight
from safelight import Client, Tls

from tests.client.scripted_service import ScriptedService


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A key and a certificate of localhost that signs itself, both PEM."""
    if shutil.which("openssl") is None:
        pytest.skip("the certificate is made by openssl, which is not installed")
    folder: Path = tmp_path_factory.mktemp("certificate")
    run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", "key.pem", "-out", "certificate.pem"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return (folder / "key.pem").read_bytes(), (folder / "certificate.pem").read_bytes()


def test_token_travels_as_a_bearer_token(scripted: ScriptedService) -> None:
    with Client(scripted.target, token="secret") as client:
        client.list_models()
    assert scripted.metadata["authorization"] == "Bearer secret"


def test_token_that_cannot_be_sent_is_refused_without_being_told() -> None:
    with pytest.raises(ValueError, match="visible ASCII") as raised:
        Client("localhost:50051", token="secret\n")
    assert "secret" not in str(raised.value)


def test_metadata_of_client_and_call_are_both_sent(scripted: ScriptedService) -> None:
    with Client(scripted.target, metadata=[("x-tenant", "a")]) as client:
        client.list_models(metadata=[("x-request-id", "b")])
    assert scripted.metadata["x-tenant"] == "a"
    assert scripted.metadata["x-request-id"] == "b"


def test_user_agent_names_the_client_and_its_version(
    scripted: ScriptedService, client: Client
) -> None:
    client.list_models()
    user_agent = scripted.metadata["user-agent"]
    assert isinstance(user_agent, str)
    assert user_agent.startswith(f"safelight-python/{safelight.__version__} grpc-python/")


def test_url_is_refused_as_a_target() -> None:
    with pytest.raises(ValueError, match="such as localhost:50051, not 'http://localhost:50051'"):
        Client("http://localhost:50051")


def test_tls_trusts_the_given_authority(certificate: tuple[bytes, bytes]) -> None:
    credentials = grpc.ssl_server_credentials([certificate])
    with (
        ScriptedService(credentials) as service,
        Client(service.target, tls=Tls(root_certificates=certificate[1])) as client,
    ):
        assert client.list_models() == []


def test_tls_refuses_an_authority_that_it_does_not_know(certificate: tuple[bytes, bytes]) -> None:
    credentials = grpc.ssl_server_credentials([certificate])
    with (
        ScriptedService(credentials) as service,
        Client(service.target, tls=True) as client,
        pytest.raises(safelight.ServiceUnavailableError),
    ):
        client.list_models()


def test_client_certificate_is_shown_to_a_service_that_asks(
    certificate: tuple[bytes, bytes],
) -> None:
    key, chain = certificate
    credentials = grpc.ssl_server_credentials([certificate], chain, require_client_auth=True)
    tls = Tls(root_certificates=chain, private_key=key, certificate_chain=chain)
    with ScriptedService(credentials) as service, Client(service.target, tls=tls) as client:
        assert client.list_models() == []


def test_credentials_of_grpc_are_taken_as_they_are(certificate: tuple[bytes, bytes]) -> None:
    credentials = grpc.ssl_server_credentials([certificate])
    tls = grpc.ssl_channel_credentials(certificate[1])
    with ScriptedService(credentials) as service, Client(service.target, tls=tls) as client:
        assert client.list_models() == []


def test_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="must be given together"):
        Tls(private_key=b"key")


def test_private_key_stays_out_of_the_repr() -> None:
    assert "key" not in repr(Tls(private_key=b"key", certificate_chain=b"chain"))
