"""Tenants: whose device time a call takes."""

import pytest

from safelight_service.auth.tokens import Caller, digest_token
from safelight_service.core.tenant import Tenant
from safelight_service.grpc_server.tenants import find_host, find_tenant
from safelight_settings import TrustedProxies


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:4711", "127.0.0.1"),
        ("ipv4:127.0.0.1:4712", "127.0.0.1"),
        ("ipv6:%5B::1%5D:4711", "::1"),
        ("ipv6:[2001:DB8::1]:4711", "2001:db8::1"),
        ("ipv6:[fe80::1%25eth0]:4711", "fe80::1%eth0"),
        ("ipv6:[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("unix:", ""),
        ("unix:/run/safelight.sock", ""),
        ("unix-abstract:name", ""),
        ("", ""),
    ],
)
def test_a_peer_is_known_by_its_address_without_the_port(peer: str, host: str) -> None:
    assert find_host(peer) == host


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("ipv4:10.0.0.1:1", ["203.0.113.7"], "203.0.113.7"),
        ("ipv4:10.0.0.1:1", [], "10.0.0.1"),
        ("ipv4:10.0.0.1:1", ["198.51.100.1, 203.0.113.7", "10.0.0.2"], "203.0.113.7"),
        ("ipv6:[::ffff:10.0.0.1]:1", ["203.0.113.7"], "203.0.113.7"),
        ("ipv4:192.0.2.1:1", ["203.0.113.7"], "192.0.2.1"),
        ("ipv4:10.0.0.1:1", ["2001:db8:0:1:2::3"], "2001:db8:0:1::/64"),
        ("unix:", ["203.0.113.7"], ""),
    ],
)
def test_a_trusted_proxy_states_the_address_of_its_client(
    peer: str, forwarded_for: list[str], client: str
) -> None:
    metadata = [("x-forwarded-for", value) for value in forwarded_for]
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert find_tenant(None, peer, metadata, proxies) == Tenant(client)


def test_all_addresses_of_an_ipv6_host_are_one_tenant() -> None:
    """Otherwise each would have its share of the device and a place in the queue."""
    peers = [f"ipv6:[2001:db8:0:1::{number}]:4711" for number in range(9)]
    assert len({find_tenant(None, peer, (), TrustedProxies()) for peer in peers}) == 1
    other = find_tenant(None, "ipv6:[2001:db8:0:2::1]:4711", (), TrustedProxies())
    assert other != find_tenant(None, peers[0], (), TrustedProxies())


def test_a_token_is_a_tenant_wherever_it_calls_from() -> None:
    caller = Caller(name="billing", sha256=digest_token("x"), weight=3.0)
    assert find_tenant(caller, "ipv4:127.0.0.1:1", (), TrustedProxies()) == Tenant("billing", 3.0)
    assert find_tenant(None, "ipv4:127.0.0.1:1", (), TrustedProxies()) == Tenant("127.0.0.1", 1.0)
