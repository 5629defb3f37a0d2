"""Fixtures of the fleet's tests."""

from collections.abc import Iterator

import pytest

from support.engine.tiny_models import TinyModels
from support.fleet.ray_cluster import RayCluster, open_ray_cluster
from tests.service.fleet.backends import settings_of


@pytest.fixture(scope="module")
def ray_cluster(tiny_models: TinyModels) -> Iterator[RayCluster]:
    """A Ray cluster with one engine."""
    pytest.importorskip("ray", reason="Ray is not installed: scripts/install-ray installs it")
    with open_ray_cluster(settings_of(tiny_models), 1) as cluster:
        yield cluster
