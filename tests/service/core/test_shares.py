"""Shares of a bounded resource: the tenant that gives way when it is full."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight_service.core.shares import Shares
from safelight_service.core.tenant import Tenant

WEIGHTS = {"light": 1.0, "heavy": 3.0, "other": 1.0}


@pytest.mark.parametrize(
    ("amounts", "excessive"),
    [
        ({"light": 1}, "light"),
        ({"light": 30, "heavy": 70}, "light"),
        ({"light": 20, "heavy": 85}, "heavy"),
        ({"light": 60, "heavy": 60, "other": 1}, "light"),
    ],
)
def test_the_tenant_that_exceeds_its_share_most_is_found(
    amounts: dict[str, int], excessive: str
) -> None:
    shares = Shares(100)
    for name, amount in amounts.items():
        shares.add(Tenant(name, WEIGHTS[name]), amount)
    assert shares.find_excessive() == excessive


def test_a_tenant_that_holds_nothing_is_forgotten_and_has_no_share() -> None:
    shares = Shares(100)
    shares.add(Tenant("heavy", 1000.0), 10)
    shares.take("heavy", 10)
    shares.add(Tenant("light"), 60)
    shares.add(Tenant("other"), 45)
    assert shares.is_exceeded
    assert dict(shares.amounts) == {"light": 60, "other": 45}
    assert shares.find_excessive() == "light"


@given(st.lists(st.tuples(st.sampled_from(sorted(WEIGHTS)), st.integers(1, 60)), min_size=1))
def test_no_tenant_within_its_share_has_to_give_way(held: list[tuple[str, int]]) -> None:
    shares = Shares(100)
    for name, amount in held:
        shares.add(Tenant(name, WEIGHTS[name]), amount)
        while shares.is_exceeded:
            victim = shares.find_excessive()
            total = sum(WEIGHTS[each] for each in shares.amounts)
            assert shares.amounts[victim] > 100 * WEIGHTS[victim] / total
            shares.take(victim, 1)
