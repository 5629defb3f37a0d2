"""Tenants: the tenant of a call, by its token or by its address."""

import ipaddress
from urllib.parse import unquote

from safelight_service.auth.tokens import Caller
from safelight_service.core.tenant import Tenant


def find_tenant(caller: Caller | None, peer: str) -> Tenant:
    """Return the tenant of a call: its token's, or its host's where the service has no tokens."""
    return caller.tenant if caller is not None else Tenant(find_host(peer))


def find_host(peer: str) -> str:
    """Return the IP address in gRPC's name of a peer, such as `ipv4:127.0.0.1:4711`.

    Empty for unix sockets. An IPv4 address that is mapped to IPv6 is the same host.
    """
    scheme, _, address = unquote(peer).partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return ""
    host = address.rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)
