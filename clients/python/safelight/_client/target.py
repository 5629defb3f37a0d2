"""The target: the address of the service, as gRPC reads it."""

import ipaddress
import re

DEFAULT_PORT = 50051

_SCHEME = re.compile(r"(?:dns|ipv4|ipv6):(?://[^/]*/)?", re.IGNORECASE)


def complete_target(target: str) -> str:
    """Return the target; a bare host gets the default port, where gRPC would use 443.

    Raises:
        ValueError: the target is empty or a URL.
    """
    if not target or re.match(r"(https?|grpcs?)://", target, re.IGNORECASE):
        raise ValueError(
            f"target must be a gRPC target such as localhost:{DEFAULT_PORT}, not {target!r}"
        )
    if _is_ipv6(target):
        return f"[{target.strip('[]')}]:{DEFAULT_PORT}"
    if re.fullmatch(r"[^:/]+", target):
        return f"{target}:{DEFAULT_PORT}"
    return target


def is_loopback(target: str) -> bool:
    """Whether a target, with its port, is an address of this machine."""
    host = _SCHEME.sub("", target, count=1).rpartition(":")[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host[1:-1] if re.fullmatch(r"\[.*\]", host) else host)
    except ValueError:
        return False
    return True
