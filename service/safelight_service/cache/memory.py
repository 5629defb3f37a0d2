"""Memory: results in the process itself, the least recently used forgotten first."""

import cachetools

from safelight_service.cache.results import Result


class MemoryTier:
    """Results of up to `max_bytes` in all."""

    name = "memory"

    def __init__(self, max_bytes: int) -> None:
        self._results: cachetools.LRUCache[str, Result] = cachetools.LRUCache(
            max_bytes, getsizeof=lambda result: result.size_bytes
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of the images that are kept."""
        return int(self._results.currsize)

    async def get(self, key: str) -> Result | None:
        """Return what was kept under that key."""
        return self._results.get(key)

    async def put(self, key: str, result: Result) -> None:
        """Keep a result, unless it is larger than all the room."""
        if result.size_bytes <= self._results.maxsize:
            self._results[key] = result

    async def close(self) -> None:
        """Forget everything."""
        self._results.clear()
