"""Memory tier: results in the process itself."""

from collections import OrderedDict

from safelight_service.cache.results import Result
from safelight_service.core.shares import Shares
from safelight_service.core.tenant import NO_TENANT, Tenant


class MemoryTier:
    """Keeps results of up to `max_bytes` in total.

    Beyond that, the owner that exceeds its share most loses its least recently used results.
    """

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._results: dict[str, tuple[str, Result]] = {}
        """Results with the names of their owners."""
        self._by_owner: dict[str, OrderedDict[str, None]] = {}
        """Keys, the least recently used first."""
        self._shares = Shares(max_bytes)

    @property
    def size_bytes(self) -> int:
        """Bytes of all images."""
        return self._shares.total

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None."""
        if key not in self._results:
            return None
        owner, result = self._results[key]
        self._by_owner[owner].move_to_end(key)
        return result

    async def put(self, key: str, result: Result, owner: Tenant = NO_TENANT) -> None:
        """Keep a result, unless it is larger than `max_bytes` or than its owner's share."""
        if result.size_bytes > self._max_bytes:
            return
        if key in self._results:
            self._forget(key)
        self._results[key] = owner.name, result
        self._by_owner.setdefault(owner.name, OrderedDict())[key] = None
        self._shares.add(owner, result.size_bytes)
        while self._shares.is_exceeded:
            self._forget(next(iter(self._by_owner[self._shares.find_excessive()])))

    async def close(self) -> None:
        """Remove all results."""
        self._results.clear()
        self._by_owner.clear()
        self._shares = Shares(self._max_bytes)

    def _forget(self, key: str) -> None:
        owner, result = self._results.pop(key)
        del self._by_owner[owner][key]
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        self._shares.take(owner, result.size_bytes)
