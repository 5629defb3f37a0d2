"""Descriptors: how many connections the process may open."""

import resource

_RESERVE = 64
"""Descriptors for the service, the log and the event loop."""
_LEAST = 8


def raise_descriptor_limit() -> None:
    """Raise the soft limit on open files to the hard one, as far as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):  # some systems refuse a hard limit that is infinite
        return


def count_connections(wanted: int) -> int:
    """Return how many of the wanted connections the limit on open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(_LEAST, soft - _RESERVE))
