"""Fixtures of the gateway's tests."""

from collections.abc import Iterator

import pytest

from support.running_gateway import RunningGateway, run_gateway
from support.running_service import RunningService
from tests.gateway.failing_service import FailingService
from tests.gateway.third_party.client_process import VERSION

ALIASES = {
    "black-forest-labs/FLUX.1-dev": "shapes",
    "black-forest-labs/flux-dev": "shapes",
    "fal-ai/flux/dev": "shapes",
    VERSION: "shapes",
}
ADAPTER_ALIASES = {
    "https://example.org/Pastel.safetensors": "pastel",
    "owner/outline-lora": "outline",
}


@pytest.fixture(scope="session")
def gateway(service: RunningService) -> Iterator[RunningGateway]:
    """A gateway to the shared service."""
    with run_gateway(service.target, aliases=ALIASES, adapter_aliases=ADAPTER_ALIASES) as running:
        yield running


@pytest.fixture(scope="module")
def failing_service() -> Iterator[FailingService]:
    """A service whose models fail."""
    with FailingService() as service:
        yield service


@pytest.fixture(scope="module")
def failing_gateway(failing_service: FailingService) -> Iterator[RunningGateway]:
    """A gateway to that service."""
    with run_gateway(
        failing_service.target, max_body_kib=64, adapter_aliases=ADAPTER_ALIASES
    ) as running:
        yield running


@pytest.fixture(scope="module")
def guarded_gateway(failing_service: FailingService) -> Iterator[RunningGateway]:
    """A gateway to that service with low limits, which trusts no proxy."""
    limits = {"head_s": 0.1, "body_s": 0.1, "idle_s": 0.1, "stall_s": 0.1, "max_bodies_mib": 1}
    with run_gateway(
        failing_service.target,
        trusted_proxies=(),
        connections={**limits, "max_count": 12, "max_per_address": 4},
        calls={"max_per_caller": 2, "max_count": 8, "channels": 2},
        jobs={"max_count": 3},
    ) as running:
        yield running


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, the only loop that gRPC supports."""
    return "asyncio"
