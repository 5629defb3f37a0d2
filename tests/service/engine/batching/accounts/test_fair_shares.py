"""Fair shares: virtual time of tenants, by device seconds and weight."""

import pytest

from safelight_service.core.tenant import Tenant
from safelight_service.engine.batching.accounts.fair_shares import FairShares

A, B, HEAVY = Tenant("a"), Tenant("b"), Tenant("heavy", 4.0)


def names(*tenants: Tenant) -> set[str]:
    return {tenant.name for tenant in tenants}


def test_device_seconds_count_by_weight() -> None:
    shares = FairShares()
    shares.activate(names(A, HEAVY))
    shares.charge(A, 2.0)
    shares.charge(HEAVY, 2.0)
    assert shares.virtual_s == {"a": 2.0, "heavy": 0.5}


def test_a_tenant_that_comes_late_has_no_credit_for_the_time_before() -> None:
    shares = FairShares()
    shares.activate(names(A))
    shares.charge(A, 100.0)
    shares.activate(names(A, B))
    assert shares.virtual_s == {"a": 100.0, "b": 100.0}


def test_a_tenant_that_comes_back_still_owes_what_it_had_beyond_its_share() -> None:
    shares = FairShares()
    shares.activate(names(A, B))
    shares.charge(B, 10.0)
    shares.activate(names(A))
    shares.charge(A, 4.0)
    shares.activate(names(A, B))
    assert shares.virtual_s == {"a": 4.0, "b": 10.0}


def test_leaving_and_coming_back_gains_nothing() -> None:
    shares = FairShares()
    shares.activate(names(A, B))
    for _ in range(10):
        shares.charge(A, 1.0)
        shares.charge(B, 1.0)
        shares.activate(names(A))
        shares.activate(names(A, B))
    assert shares.virtual_s == {"a": 10.0, "b": 10.0}


def test_seconds_that_become_known_after_the_last_job_count_too() -> None:
    """As on a GPU: otherwise one-step images would be free."""
    shares = FairShares()
    shares.activate(names(A, B))
    shares.charge(A, 5.0)
    shares.charge(B, 5.0)
    shares.activate(names(A))
    shares.charge(B, 7.0)
    shares.activate(names(A, B))
    assert shares.virtual_s == {"a": 5.0, "b": 12.0}


def test_tenants_that_the_others_have_caught_up_with_are_forgotten() -> None:
    shares = FairShares()
    shares.activate(names(A))
    for number in range(1000):
        visitor = Tenant(f"visitor {number}")
        shares.activate(names(A, visitor))
        shares.charge(visitor, 1.0)
        shares.charge(A, 1.0)
        shares.activate(names(A))
    assert shares.virtual_s.keys() == {"a"}


def test_an_idle_device_forgets_all() -> None:
    shares = FairShares()
    shares.activate(names(A))
    shares.charge(A, 5.0)
    shares.clear()
    assert not shares.virtual_s
    shares.activate(names(B))
    assert shares.virtual_s == {"b": 0.0}


@pytest.mark.parametrize("seconds", [0.0, 3.0])
def test_the_least_virtual_time_never_decreases(seconds: float) -> None:
    shares = FairShares()
    shares.activate(names(A, B))
    shares.charge(A, 9.0)
    shares.charge(B, 6.0)
    shares.activate(names(A))
    shares.charge(A, seconds)
    shares.activate(names(B))
    assert shares.virtual_s["b"] >= 6.0
