"""Fixtures of the client's tests."""

from collections.abc import Iterator

import pytest
from safelight import Client

from tests.client.scripted_service import ScriptedService


@pytest.fixture
def scripted() -> Iterator[ScriptedService]:
    """A service that plays the script that the test sets."""
    with ScriptedService() as service:
        yield service


@pytest.fixture
def client(scripted: ScriptedService) -> Iterator[Client]:
    """A client of the scripted service."""
    with Client(scripted.target) as client:
        yield client


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests on asyncio, the only loop that gRPC knows."""
    return "asyncio"
