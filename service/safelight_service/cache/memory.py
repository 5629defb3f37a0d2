"""Memory tier: results in the process itself."""

import cachetools

from safelight_service.cache.results import Result


class MemoryTier:
    """Keeps results of up to `max_bytes` in total; evicts the least recently used."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._results: cachetools.LRUCache[str, Result] = cachetools.LRUCache(
            max_bytes, getsizeof=lambda result: result.size_bytes
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of all images."""
        return int(self._results.currsize)

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None."""
        return self._results.get(key)

    async def put(self, key: str, result: Result) -> None:
        """Keep a result, unless it is larger than `max_bytes`."""
        if result.size_bytes <= self._results.maxsize:
            self._results[key] = result

    async def close(self) -> None:
        """Remove all results."""
        self._results.clear()
