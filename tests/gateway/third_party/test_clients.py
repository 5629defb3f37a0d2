"""Third-party clients, unmodified: each gets the image it requested."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trustme
from safelight import Client

from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.gateway.third_party.client_process import (
    ARE_INSTALLED,
    PARAMETERS,
    PROMPT,
    Case,
    Outcome,
    start_clients,
)

pytestmark = pytest.mark.skipif(
    not ARE_INSTALLED, reason="run scripts/install-gateway-clients first"
)

NEBIUS = "hub_nebius"
CLIENTS = {
    "python": (
        "hub_base_url",
        "hub_unset_provider",
        "hub_hf-inference",
        "hub_fal-ai",
        "hub_replicate",
        "hub_together",
        "hub_async",
        "requests_hf_inference",
        "requests_models",
        "requests_fal",
        "requests_nebius",
        "requests_replicate",
        "requests_together",
        "fal_run",
        "fal_run_sync_mode",
        "fal_subscribe",
        "fal_submit",
        "replicate_run",
        "replicate_version",
        "replicate_poll",
        "together_b64",
        "together_url",
        "openai_b64",
        "openai_nebius_url",
        "openai_stream",
    ),
    "python-nebius": ("hub_hf-inference", "hub_fal-ai", NEBIUS),
    "node": (
        "huggingface_endpoint_url",
        "huggingface_hf-inference",
        "huggingface_fal-ai",
        "huggingface_replicate",
        "huggingface_together",
        "huggingface_old_fal-ai",
        "huggingface_old_nebius",
        "fetch_hf_inference",
        "fetch_fal",
        "fetch_nebius",
        "fetch_replicate",
        "fetch_together",
        "fal_proxy_subscribe",
        "fal_proxy_run",
        "fal_middleware_subscribe",
        "fal_middleware_run",
        "replicate_run",
        "replicate_version",
        "replicate_poll",
        "together_b64",
        "together_url",
        "openai_b64",
        "openai_nebius",
        "openai_stream",
        "ai_sdk_openai",
        "ai_sdk_replicate",
        "ai_sdk_fal",
    ),
}
TLS_CLIENTS = {
    "python": ("hub_hf-inference", "hub_fal-ai", "requests_together", "fal_subscribe"),
    "node": ("huggingface_fal-ai", "fal_proxy_subscribe", "replicate_run"),
}
CASES = [(runtime, name) for runtime, names in CLIENTS.items() for name in names]


@pytest.fixture(scope="module")
def outcomes(gateway: RunningGateway) -> dict[tuple[str, str], Outcome]:
    """The outcome of each client, with one process for each runtime."""
    started = {
        runtime: start_clients(runtime, [Case(name, gateway.url) for name in names])
        for runtime, names in CLIENTS.items()
    }
    return {
        (runtime, name): outcome
        for runtime, process in started.items()
        for name, outcome in zip(CLIENTS[runtime], process.outcomes(), strict=True)
    }


@pytest.fixture
def tls_outcomes(service: RunningService, tmp_path: Path) -> list[Outcome]:
    """The outcomes of some clients over TLS, without a prefix."""
    authority, (authorities, certificate, key) = trustme.CA(), (tmp_path / name for name in "abc")
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(authorities))
    issued.private_key_pem.write_to_path(str(key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(certificate), append=True)
    names = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
    with run_gateway(service.target, certificate=certificate, key=key) as gateway:
        started = [
            start_clients(
                runtime,
                [Case(name, gateway.url) for name in clients],
                prefix="",
                environment=dict.fromkeys(names, str(authorities)),
            )
            for runtime, clients in TLS_CLIENTS.items()
        ]
        return [outcome for process in started for outcome in process.outcomes()]


@pytest.fixture(scope="module")
def expected(service: RunningService) -> Iterator[dict[bool, np.ndarray]]:
    """The pixels of the image over gRPC, and those without `guidance_scale` (False)."""
    unguided = {k: v for k, v in PARAMETERS.items() if k != "guidance_scale"}
    with Client(service.target) as client:
        yield {
            True: np.asarray(client.text_to_image(PROMPT, **PARAMETERS)).astype(int),
            False: np.asarray(client.text_to_image(PROMPT, **unguided)).astype(int),
        }


@pytest.mark.parametrize(("runtime", "name"), CASES)
def test_client_gets_the_image_that_it_asked_for(
    runtime: str,
    name: str,
    outcomes: dict[tuple[str, str], Outcome],
    expected: dict[bool, np.ndarray],
) -> None:
    image = np.asarray(outcomes[runtime, name].image).astype(int)
    assert image.shape == (64, 96, 3)
    # This client does not send the guidance to Nebius.
    pixels = expected[name != NEBIUS]
    # Equal up to rounding: clients of several runtimes share forwards.
    assert np.abs(image - pixels).max() <= 2
    assert all(status < 300 for _, _, status in outcomes[runtime, name].requests)


def test_clients_get_it_over_tls_as_well(
    tls_outcomes: list[Outcome], expected: dict[bool, np.ndarray]
) -> None:
    for outcome in tls_outcomes:
        image = np.asarray(outcome.image).astype(int)
        assert image.shape == (64, 96, 3)
        assert np.abs(image - expected[True]).max() <= 2
