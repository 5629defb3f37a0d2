"""Tenants: the tenant of a call, by its token or by its address."""

from collections.abc import Iterable
from urllib.parse import unquote

from safelight_service.auth.tokens import Caller
from safelight_service.core.tenant import Tenant
from safelight_settings import TrustedProxies, find_network, normalize_host

Metadata = Iterable[tuple[str, str | bytes]]

FORWARDED_FOR = "x-forwarded-for"


def find_tenant(
    caller: Caller | None,
    peer: str,
    metadata: Metadata,
    proxies: TrustedProxies,
) -> Tenant:
    """Return the tenant of a call: its token's, or its client's where the service has no tokens.

    All addresses of a /64 network of IPv6 are one client, which could otherwise have a share for
    each of them.
    """
    if caller is not None:
        return caller.tenant
    return Tenant(find_network(find_client(peer, metadata, proxies)))


def find_client(peer: str, metadata: Metadata, proxies: TrustedProxies) -> str:
    """Return the IP address of a call's client: the peer's, or what a trusted proxy states.

    Args:
        peer: gRPC's name of the peer.
        metadata: Metadata of the call, of which `x-forwarded-for` counts.
        proxies: Peers that may state the address of their client.
    """
    host = find_host(peer)
    if not proxies.trusts(host):
        return host
    values = [str(value) for key, value in metadata if key == FORWARDED_FOR]
    return proxies.find_client(host, ",".join(values))[0]


def find_host(peer: str) -> str:
    """Return the IP address in gRPC's name of a peer, such as `ipv4:127.0.0.1:4711`.

    Empty for unix sockets. An IPv4 address that is mapped to IPv6 is the same host.
    """
    scheme, _, address = unquote(peer).partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return ""
    return normalize_host(address.rpartition(":")[0].strip("[]"))
