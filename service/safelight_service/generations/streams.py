"""Streams: the calls that read generations, bounded for each tenant.

Streams take turns after each message, which is a chunk of an image at most. So with a bound on
their number, no tenant delays the streams of others for long.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from safelight_service.core.errors import TooManyStreamsError
from safelight_service.core.tenant import Tenant


class StreamBounds:
    """Counts the open streams of each tenant, and those among them that are extra.

    A stream is extra if its generation has ended or is being watched already. The queue bounds the
    others, so an ordinary client that comes back to its generations is not refused.
    """

    def __init__(self, max_count: int, max_extra_count: int) -> None:
        self._open = _Bound(max_count, "streams")
        self._extra = _Bound(max_extra_count, "streams of ended or watched generations")

    @contextmanager
    def open(self, tenant: Tenant) -> Iterator[None]:
        """Count a stream of a tenant as open until the block ends.

        Raises:
            TooManyStreamsError: the tenant has as many open as it may.
        """
        with self._open.enter(tenant):
            yield

    @contextmanager
    def join(self, tenant: Tenant, *, is_extra: bool) -> Iterator[None]:
        """Count an open stream that joins a generation as extra, if it is.

        Raises:
            TooManyStreamsError: the tenant has as many of them as it may.
        """
        if not is_extra:
            yield
            return
        with self._extra.enter(tenant):
            yield


class _Bound:
    def __init__(self, max_count: int, unit: str) -> None:
        self._max_count = max_count
        self._unit = unit
        self._counts: Counter[str] = Counter()

    @contextmanager
    def enter(self, tenant: Tenant) -> Iterator[None]:
        if self._counts[tenant.name] >= self._max_count:
            raise TooManyStreamsError(self._max_count, self._unit)
        self._counts[tenant.name] += 1
        try:
            yield
        finally:
            self._counts[tenant.name] -= 1
            if not self._counts[tenant.name]:
                del self._counts[tenant.name]
