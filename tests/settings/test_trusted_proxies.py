"""Trusted proxies: which address counts as the client's."""

import pytest

from safelight_settings import TrustedProxies

PROXIES = TrustedProxies(["10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client", "hop_count"),
    [
        ("203.0.113.7", "198.51.100.1", "203.0.113.7", 0),
        ("10.0.0.1", "203.0.113.7", "203.0.113.7", 1),
        ("10.0.0.1", " 203.0.113.7 ", "203.0.113.7", 1),
        ("10.0.0.1", "127.0.0.1, 203.0.113.7, 10.0.0.2", "203.0.113.7", 2),
        ("10.0.0.1", "10.0.0.2", "10.0.0.2", 2),
        ("10.0.0.1", "", "10.0.0.1", 1),
        ("10.0.0.1", "unknown", "10.0.0.1", 1),
        ("10.0.0.1", "198.51.100.1, evil, 10.0.0.2", "10.0.0.2", 2),
        ("10.0.0.1", "203.0.113.7:4711", "203.0.113.7", 1),
        ("10.0.0.1", "[2001:db9::1]:4711", "2001:db9::1", 1),
        ("2001:db8::1", "::ffff:203.0.113.7", "203.0.113.7", 1),
        ("::ffff:10.0.0.1", "203.0.113.7", "203.0.113.7", 1),
        ("", "203.0.113.7", "", 0),
    ],
)
def test_the_walk_from_the_right_ends_at_the_first_stranger(
    peer: str, forwarded_for: str, client: str, hop_count: int
) -> None:
    assert PROXIES.find_client(peer, forwarded_for) == (client, hop_count)


def test_without_proxies_nobody_states_an_address() -> None:
    assert TrustedProxies().find_client("127.0.0.1", "203.0.113.7") == ("127.0.0.1", 0)
