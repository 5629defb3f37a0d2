"""Fixtures that the tests of all packages share."""

from collections.abc import Iterator

import pytest

from tests.running_service import RunningService, run_service


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    """The real service with the embedded model, shared by all tests."""
    with run_service() as running:
        yield running
