"""The connection: the token, the metadata, TLS and what is refused before any call."""

import asyncio

import grpc
import pytest
import safelight
import trustme
from safelight import AsyncClient, Client, Tls
from safelight._client.target import complete_target, is_loopback

from tests.client.scripted_service import (
    HOLD,
    ScriptedService,
    accepted,
    failure,
    whole_generation,
)

AUTHORITY = trustme.CA()


@pytest.fixture(scope="session")
def authority() -> bytes:
    """The certificate of the authority that vouches for localhost, PEM."""
    return AUTHORITY.cert_pem.bytes()


@pytest.fixture(scope="session")
def certificate() -> tuple[bytes, bytes]:
    """A key and a certificate of localhost, PEM."""
    issued = AUTHORITY.issue_cert("localhost", "127.0.0.1")
    return issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()


def test_token_travels_as_a_bearer_token(scripted: ScriptedService) -> None:
    with Client(scripted.target, token="secret") as client:
        client.list_models()
    assert scripted.metadata["authorization"] == "Bearer secret"


def test_token_that_cannot_be_sent_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="visible ASCII") as raised:
        Client("localhost:50051", token="secret\n")
    assert "secret" not in str(raised.value)


def test_metadata_of_client_and_call_are_both_sent(scripted: ScriptedService) -> None:
    with Client(scripted.target, metadata=[("x-tenant", "a")]) as client:
        client.list_models(metadata=[("x-request-id", "b")])
    assert scripted.metadata["x-tenant"] == "a"
    assert scripted.metadata["x-request-id"] == "b"


def test_calls_about_a_generation_name_it_for_proxies(scripted: ScriptedService) -> None:
    scripted.play(whole_generation())

    def take_id() -> object:
        return scripted.metadata.pop("x-generation-id", None)

    with Client(scripted.target) as client:
        client.text_to_image("a red circle")
        assert take_id() == scripted.requests[-1].generation_id != ""
        client.text_to_image("a red circle", generation_id="mine")
        assert take_id() == "mine"
        client.cancel("mine")
        assert take_id() == "mine"
        scripted.play(failure(grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND"))
        for generation_id, sent in (("mine", "mine"), ("no id\n", None), ("", None)):
            with (
                pytest.raises(safelight.GenerationNotFoundError),
                client.watch(generation_id) as generation,
            ):
                next(generation)
            assert take_id() == sent
        scripted.play(accepted(), HOLD)
        with client.generate("a red circle", generation_id="left") as generation:
            next(generation)
            assert take_id() == "left"
        assert take_id() == "left"
        client.list_models()
        assert take_id() is None


def test_the_asyncio_client_names_generations_too(scripted: ScriptedService) -> None:
    async def call() -> None:
        async with AsyncClient(scripted.target) as client:
            await client.cancel("mine")

    asyncio.run(call())
    assert scripted.metadata["x-generation-id"] == "mine"


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


@pytest.mark.parametrize(
    ("target", "completed", "is_local"),
    [
        ("localhost", "localhost:50051", True),
        ("images.example", "images.example:50051", False),
        ("10.0.0.7", "10.0.0.7:50051", False),
        ("127.0.0.9:80", "127.0.0.9:80", True),
        ("::1", "[::1]:50051", True),
        ("[::1]", "[::1]:50051", True),
        ("[::1]:80", "[::1]:80", True),
        ("[2001:db8::1]:80", "[2001:db8::1]:80", False),
        ("ipv4:127.0.0.1:80", "ipv4:127.0.0.1:80", True),
        ("dns:///localhost:80", "dns:///localhost:80", True),
        ("dns://8.8.8.8/localhost:80", "dns://8.8.8.8/localhost:80", True),
        ("dns:///images.example", "dns:///images.example", False),
        ("unix:/run/safelight.sock", "unix:/run/safelight.sock", False),
        ("unix:a folder/safelight.sock", "unix:a folder/safelight.sock", False),
        ("unix:///run/safelight.sock", "unix:///run/safelight.sock", False),
        ("dns:localhost:80", "dns:localhost:80", True),
        ("dns:images.example", "dns:images.example", False),
        ("ipv4:127.0.0.1:80,127.0.0.2:80", "ipv4:127.0.0.1:80,127.0.0.2:80", False),
        ("xds:///safelight", "xds:///safelight", False),
    ],
)
def test_bare_hosts_get_the_default_port_and_addresses_of_this_machine_are_known(
    target: str, completed: str, is_local: bool
) -> None:
    assert complete_target(target) == completed
    assert is_loopback(completed) == is_local


@pytest.mark.parametrize(
    "target",
    [
        *("", " ", ":80", "host:", "host:0", "host:65536", "host:99999", "host:name", "host:80/"),
        *("a b:80", "dns://host:80", "2001:db8::g:80", "h\udcff:80", "unix:\udcff", "GRPC://host"),
    ],
)
def test_target_that_grpc_would_misread_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target must be a gRPC target such as localhost:50051"):
        Client(target)


@pytest.mark.parametrize("timeout", [1e10, 1e300, float("inf")])
def test_time_out_beyond_what_grpc_can_hold_is_no_failure(
    timeout: float, scripted: ScriptedService
) -> None:
    with Client(scripted.target, timeout=timeout) as client:
        assert client.list_models() == []


def test_no_proxy_is_used_for_this_machine(
    scripted: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with Client(scripted.target) as client:
        assert client.list_models() == []


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_time_out_that_is_no_duration_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be 0 or more seconds"):
        Client("localhost", timeout=timeout)
    with Client("localhost") as client, pytest.raises(ValueError, match="timeout must be"):
        client.list_models(timeout=timeout)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("seed", 2**63, "seed must be from 0 to 9223372036854775807, not 9223372036854775808"),
        ("width", 2**31, "width must be from 0 to 2147483647, not 2147483648"),
        ("output_quality", -(2**40), "output_quality must be from 0 to 2147483647"),
        ("linger", 3601, "linger must be from 0 to 3600 seconds, not 3601"),
        ("linger", float("nan"), "linger must be from 0 to 3600 seconds, not nan"),
        ("linger", -1e300, "linger must be from 0 to 3600 seconds, not -1e"),
        ("negative_prompt", "\udcff", "negative_prompt must be UTF-8"),
    ],
)
def test_value_that_the_contract_cannot_hold_is_refused_by_its_name(
    option: str, value: object, message: str
) -> None:
    with Client("localhost") as client, pytest.raises(ValueError, match=message):
        client.generate("a red circle", **{option: value})  # type: ignore[arg-type]


def test_tls_trusts_the_given_authority(authority: bytes, certificate: tuple[bytes, bytes]) -> None:
    credentials = grpc.ssl_server_credentials([certificate])
    with (
        ScriptedService(credentials) as service,
        Client(service.target, tls=Tls(root_certificates=authority)) as client,
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
    authority: bytes, certificate: tuple[bytes, bytes]
) -> None:
    key, chain = certificate
    credentials = grpc.ssl_server_credentials([certificate], authority, require_client_auth=True)
    tls = Tls(root_certificates=authority, private_key=key, certificate_chain=chain)
    with ScriptedService(credentials) as service, Client(service.target, tls=tls) as client:
        assert client.list_models() == []


def test_credentials_of_grpc_are_taken_as_they_are(
    authority: bytes, certificate: tuple[bytes, bytes]
) -> None:
    credentials = grpc.ssl_server_credentials([certificate])
    tls = grpc.ssl_channel_credentials(authority)
    with ScriptedService(credentials) as service, Client(service.target, tls=tls) as client:
        assert client.list_models() == []


def test_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(ValueError, match="must be given together"):
        Tls(private_key=b"key")


def test_private_key_stays_out_of_the_repr() -> None:
    assert "key" not in repr(Tls(private_key=b"key", certificate_chain=b"chain"))
