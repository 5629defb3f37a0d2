"""Descriptors: the limit on open files of the process, and the part of it for connections."""

import resource

import structlog

_RESERVE = 256
"""Descriptors for models, results, logs and libraries, which no connection may take."""

_log = structlog.get_logger()


def raise_limit() -> None:
    """Raise the soft limit on open files to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def bound_connections(max_count: int) -> int:
    """Return how many of `max_count` connections leave descriptors for files; at least one.

    Logs a warning if these are fewer.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or max_count + _RESERVE <= soft:
        return max_count
    bounded = max(1, soft - _RESERVE)
    _log.warning("few_descriptors", limit=soft, max_connections=bounded)
    return bounded
