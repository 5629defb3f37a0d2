"""Shares: what one holder cannot take from another."""

import pytest

from safelight_gateway.shares import Shares, holder_of


def take_all(shares: Shares, holder: str) -> int:
    count = 0
    while shares.take(holder):
        count += 1
    return count


def test_a_holder_leaves_as_much_as_it_takes() -> None:
    shares = Shares(100)
    assert [take_all(shares, holder) for holder in ("a", "b", "c")] == [50, 25, 13]
    assert shares.free == 12
    shares.give_back("a", 50)
    assert shares.held_by("a") == 0
    assert take_all(shares, "b") > 0


def test_no_holder_takes_more_than_the_most() -> None:
    shares = Shares(100, most=8)
    assert take_all(shares, "a") == 8
    assert not shares.take("b", 9)
    assert shares.held_by("b") == 0


def test_the_last_place_is_taken() -> None:
    shares = Shares(2)
    assert shares.take("a")
    assert shares.take("b")
    assert not shares.take("c")


@pytest.mark.parametrize(
    ("host", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("", "", True),
    ],
)
def test_all_addresses_of_an_ipv6_host_are_one_holder(host: str, other: str, is_same: bool) -> None:
    assert (holder_of(host) == holder_of(other)) is is_same
