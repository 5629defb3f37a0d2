"""Fixtures shared by the tests of all packages."""

import os
from collections.abc import Iterator

import pytest

from support.running_service import RunningService, prepare_services, run_service

# For this process and its children: each service would otherwise have a team of threads that spin
# while they wait, and several teams would compete for the cores.
os.environ["OMP_NUM_THREADS"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    """Prepare to start services, except in a process that only hands tests to others."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        prepare_services()


MAX_CONNECTIONS = 100
"""Connection limit of the shared service, low enough for a test to reach it."""


@pytest.fixture(scope="session")
def service() -> Iterator[RunningService]:
    """The real service with the embedded model, shared by all tests."""
    with run_service(connections=f'{{"max_count": {MAX_CONNECTIONS}}}') as running:
        yield running
