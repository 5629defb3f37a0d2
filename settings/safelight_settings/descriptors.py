"""Descriptors: the limit on open files of the process, and the part of it for connections."""

import resource
from contextlib import suppress

_LEAST = 8
"""Connections that are allowed in any case."""
_FINITE = (1 << 16, 10_240)
"""Limits to try where the hard one is infinite, which macOS does not allow as a soft one."""


def raise_descriptor_limit() -> None:
    """Raise the soft limit on open files to the hard one, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, *(each for each in _FINITE if each > soft)):
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return


def count_connections(wanted: int, reserve: int) -> int:
    """Return how many of the wanted connections leave as many descriptors as `reserve` says."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(_LEAST, soft - reserve))
