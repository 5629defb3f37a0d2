"""The target: the address of the service, as gRPC reads it."""

import ipaddress
import re

DEFAULT_PORT = 50051

_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:/\[\]]+):(\d{1,5})")
_OTHER_FORMS = re.compile(
    r"(unix|unix-abstract|vsock|ipv4|ipv6):.+|dns:[^:/\s]+|[\w+.-]+://[^/]*/.*", re.IGNORECASE
)
_SCHEME = re.compile(r"(?:dns|ipv4|ipv6):(?://[^/]*/)?", re.IGNORECASE)


def complete_target(target: str) -> str:
    """Return the target; a bare host gets the default port, where gRPC would use 443.

    Raises:
        ValueError: the target is a URL, or gRPC cannot read it or would read another port.
    """
    if _is_ipv6(target):
        return f"[{target.strip('[]')}]:{DEFAULT_PORT}"
    completed = f"{target}:{DEFAULT_PORT}" if re.fullmatch(r"[^:/]+", target) else target
    if not _is_target(completed):
        raise ValueError(
            f"target must be a gRPC target such as localhost:{DEFAULT_PORT}, not {target!r}"
        )
    return completed


def is_loopback(target: str) -> bool:
    """Whether a target, with its port, is an address of this machine."""
    host = _SCHEME.sub("", target, count=1).rpartition(":")[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_target(target: str) -> bool:
    if re.match(r"(https?|grpcs?)://", target, re.IGNORECASE) or not _is_text(target):
        return False
    if _OTHER_FORMS.fullmatch(target):
        return True
    # gRPC would take port 443 for an empty one, and 34463 for 99999.
    match = _HOST_AND_PORT.fullmatch(re.sub(r"^dns:", "", target, flags=re.IGNORECASE))
    return match is not None and not re.search(r"\s", target) and 0 < int(match[2]) <= 65535


def _is_text(text: str) -> bool:
    """Whether UTF-8 can hold a text: bytes of a command line become lone surrogates."""
    return not re.search(r"[\ud800-\udfff]", text)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host[1:-1] if re.fullmatch(r"\[.*\]", host) else host)
    except ValueError:
        return False
    return True
