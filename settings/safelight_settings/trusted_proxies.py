"""Trusted proxies: the client's address behind proxies that may state it, and its network."""

import ipaddress
from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_HOST_BITS = 64
"""An IPv6 host usually has all addresses of a network with this many bits."""


def _check_network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        raise ValueError(
            f"must be an IP address or a network such as 10.0.0.0/8, not {text!r}"
        ) from None
    return text


Network = Annotated[str, AfterValidator(_check_network)]
"""IP address, or network in CIDR notation without host bits."""


class TrustedProxies:
    """Networks of proxies whose statements about their clients count."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        """Read the networks.

        Raises:
            ValueError: one is not a network.
        """
        self._networks: tuple[_Network, ...] = tuple(map(ipaddress.ip_network, networks))

    def trusts(self, host: str) -> bool:
        """Whether a host, an IP address, is a trusted proxy."""
        try:
            address = ipaddress.ip_address(normalize_host(host))
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def find_client(self, peer: str, forwarded_for: str) -> tuple[str, int]:
        """Return the host of the client, and the number of trusted proxies on the way.

        Each proxy appends the host that called it, so the walk begins at the right and ends at
        the first host that is not trusted. Text that is no address ends it as well.

        Args:
            peer: Host of the connection.
            forwarded_for: Value of `X-Forwarded-For`, such as `203.0.113.7, 10.0.0.2`.
        """
        host, count = normalize_host(peer), 0
        # From the right and only as far as needed: the left part may be a stranger's, and long.
        rest = forwarded_for
        while self.trusts(host):
            count += 1
            rest, _, text = rest.rpartition(",")
            forwarded = _read_host(text)
            if forwarded is None:
                break
            host = forwarded
        return host, count


def normalize_host(host: str) -> str:
    """Return an IP address in one notation; IPv4 mapped to IPv6 as IPv4, other text unchanged."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def find_network(host: str) -> str:
    """Return the network whose addresses one host may have: the /64 network of an IPv6 address.

    An IPv4 address is the only one of its host; other text is unchanged.
    """
    host = normalize_host(host)
    try:
        address = ipaddress.IPv6Address(host)
    except ValueError:
        return host
    return str(ipaddress.ip_network((int(address), _HOST_BITS), strict=False))


def _read_host(text: str) -> str | None:
    """Return the IP address in an entry, which some proxies write with a port."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return normalize_host(str(ipaddress.ip_address(text)))
    except ValueError:
        return None
