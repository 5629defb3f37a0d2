"""Watches: calls that replay ended generations, or watch those that others watch already.

The queue bounds the other calls, so an ordinary client that comes back to its generations is never
refused. Streams take turns after each message, which is a chunk of an image at most. So with a
bound on their number, no tenant delays the streams of others for long.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from safelight_service.core.errors import TooManyWatchesError
from safelight_service.core.tenant import Tenant


class WatchBounds:
    """Counts the watches of each tenant."""

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._counts: Counter[str] = Counter()

    @contextmanager
    def enter(self, tenant: Tenant) -> Iterator[None]:
        """Count a watch of a tenant until the block ends.

        Raises:
            TooManyWatchesError: the tenant has as many as it may.
        """
        if self._counts[tenant.name] >= self._max_count:
            raise TooManyWatchesError(self._max_count)
        self._counts[tenant.name] += 1
        try:
            yield
        finally:
            self._counts[tenant.name] -= 1
            if not self._counts[tenant.name]:
                del self._counts[tenant.name]
