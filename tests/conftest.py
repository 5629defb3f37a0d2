"""Fixtures that the tests of all packages share."""

import os
from collections.abc import Iterator

import pytest

from support.running_service import RunningService, prepare_services, run_service

# Of this process and of all that it starts: several services at once would fight for the
# processors, each of them with a team whose threads spin while they wait.
os.environ["OMP_NUM_THREADS"] = "1"
prepare_services()

MAX_CONNECTIONS = 100
"""That the service shared by all tests takes, so that one of them can reach the limit."""


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    """The real service with the embedded model, shared by all tests."""
    with run_service(connections=f'{{"max_count": {MAX_CONNECTIONS}}}') as running:
        yield running
