"""Short floods: other callers keep the service, behind the front and directly."""

from collections.abc import Iterator

import pytest

from benchmarks.floods.attacks import ATTACKS
from benchmarks.floods.measurement import Setup, run_setup
from support.running_envoy import Envoy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Envoy.is_installed(), reason="Envoy is not installed"),
]
SECONDS = 2.0
MAX_GROWTH_MIB = 64
ONLY_FRONT = {"health watches", "repeated headers", "too long metadata", "unfinished bodies"}
"""Floods that take memory of the service without the front."""


@pytest.fixture(scope="module")
def fronted() -> Iterator[Setup]:
    with run_setup(is_fronted=True) as setup:
        setup.measure(None, SECONDS)
        yield setup


@pytest.mark.parametrize("name", ATTACKS)
def test_a_flood_behind_the_front_costs_others_no_call(name: str, fronted: Setup) -> None:
    figures = fronted.measure(name, SECONDS)
    assert figures.failed == 0
    assert figures.others["check"]["count"] > 0
    assert figures.service_growth_mib < MAX_GROWTH_MIB
    assert figures.front_growth_mib is not None
    assert figures.front_growth_mib < MAX_GROWTH_MIB


@pytest.mark.parametrize(
    "name", [name for name in ATTACKS if name not in ONLY_FRONT and not name.startswith("resets")]
)
def test_a_direct_flood_costs_others_no_call(name: str) -> None:
    with run_setup(is_fronted=False) as setup:
        setup.measure(None, SECONDS)
        figures = setup.measure(name, SECONDS)
    assert figures.failed == 0
    assert figures.others["check"]["count"] > 0
    assert figures.service_growth_mib < MAX_GROWTH_MIB
