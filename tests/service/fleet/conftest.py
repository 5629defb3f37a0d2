"""Fixtures of the fleet's tests."""

from collections.abc import Iterator

import pytest

from support.engine.tiny_models import TinyModels
from support.fleet.ray_cluster import RayCluster, deploy_engines, make_pool, run_ray
from support.otlp_receiver import Receiver, run_receiver
from tests.service.fleet.backends import settings_of


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    """A collector of telemetry."""
    with run_receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def exporting(receiver: Receiver) -> dict[str, str]:
    """Variables of a process that exports its telemetry to the collector."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{receiver.endpoint}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "200",
    }


@pytest.fixture(scope="session")
def ray_address(exporting: dict[str, str]) -> Iterator[str]:
    """Address of a Ray whose engines export their telemetry."""
    pytest.importorskip("ray", reason="Ray is not installed: scripts/install-ray installs it")
    with run_ray(exporting) as address:
        yield address


@pytest.fixture(scope="module")
def ray_cluster(ray_address: str, tiny_models: TinyModels) -> Iterator[RayCluster]:
    """A Ray cluster with one engine."""
    with deploy_engines(ray_address, settings_of(tiny_models), make_pool(1)) as cluster:
        yield cluster
