"""Descriptors: the part of the limit on open files that is for connections."""

import structlog

from safelight_settings import count_connections

_RESERVE = 256
"""Descriptors for models, results, logs and libraries, which no connection may take."""

_log = structlog.get_logger()


def bound_connections(max_count: int) -> int:
    """Return how many of `max_count` connections leave descriptors for files.

    Logs a warning if these are fewer.
    """
    bounded = count_connections(max_count, _RESERVE)
    if bounded < max_count:
        _log.warning("few_descriptors", max_connections=bounded)
    return bounded
