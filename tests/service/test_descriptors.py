"""Connections leave file descriptors for files."""

import resource
from collections.abc import Iterator

import pytest
from structlog.testing import capture_logs

from safelight_service.descriptors import bound_connections


@pytest.fixture
def soft_limit() -> Iterator[int]:
    """A low limit on open files, which the process may raise."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    yield 1024
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_fewer_connections_than_descriptors_are_allowed_with_a_warning(soft_limit: int) -> None:
    with capture_logs() as logs:
        assert bound_connections(500) == 500
        assert logs == []
        assert bound_connections(4000) == soft_limit - 256
    assert [(line["event"], line["max_connections"]) for line in logs] == [("few_descriptors", 768)]
