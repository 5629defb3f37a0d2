"""Result cache: looks results up in its tiers, the fastest first, and tolerates failing ones."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, Self

import structlog

from safelight_service.cache.disk import DiskTier
from safelight_service.cache.memory import MemoryTier
from safelight_service.cache.redis import RedisTier
from safelight_service.cache.results import MalformedResultError, Result
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.settings import CacheSettings

_log = structlog.get_logger()


class Tier(Protocol):
    """A place that keeps results; its methods may raise any failure of that place."""

    @property
    def name(self) -> str:
        """Name in logs and metrics."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all images."""

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: the kept value differs from the one put.
        """

    async def put(self, key: str, result: Result, owner: Tenant) -> None:
        """Keep a result of an owner, unless it is too large."""

    async def close(self) -> None:
        """Release threads, files and connections."""


@dataclass(slots=True)
class TierStats:
    """Counts of a tier's lookups and errors; a failed `get` counts as a miss and as an error."""

    hits: int = 0
    misses: int = 0
    errors: int = 0
    size_bytes: int = 0
    """Bytes of all images; 0 for Redis, where they are unknown."""


class ResultCache:
    """Results by key, in tiers from the fastest to the slowest. Use it on one event loop.

    A failing tier is logged and counted; no method raises its errors.
    """

    def __init__(
        self, tiers: Sequence[Tier], *, is_enabled: bool = True, replays_unseeded: bool = False
    ) -> None:
        self.is_enabled = is_enabled
        """Whether generations use it."""
        self.stats = {tier.name: TierStats() for tier in tiers}
        """Counts by the tier's name."""
        self.replays_unseeded = replays_unseeded
        """Whether requests with an open seed receive each other's results."""
        self._tiers = tiers
        self._failing: dict[str, str] = {}
        """Failing tiers, and the operation that failed first."""
        self._copying: set[asyncio.Task[None]] = set()

    @classmethod
    def open(cls, settings: CacheSettings) -> Self:
        """Make the tiers of the settings; each connects when it is first used."""
        tiers: list[Tier] = []
        if settings.enabled and settings.memory_mib:
            tiers.append(MemoryTier(settings.memory_mib << 20))
        if settings.enabled and settings.folder is not None:
            tiers.append(DiskTier(settings.folder, settings.disk_mib << 20))
        if settings.enabled and settings.redis_url is not None:
            tiers.append(RedisTier(settings.redis_url.get_secret_value(), settings.redis_ttl_s))
        return cls(tiers, is_enabled=settings.enabled, replays_unseeded=settings.replay_unseeded)

    async def get(self, key: str, owner: Tenant = NO_TENANT) -> Result | None:
        """Return the result of a key, or None; put it into the faster tiers as well.

        A copy is complete in memory at once. On disk it is written later, which no caller awaits.
        It takes the share of `owner`, the tenant that is named by its cache scope.
        """
        for position, tier in enumerate(self._tiers):
            result = None
            with self._surviving(tier, "get"):
                result = await tier.get(key)
            if result is not None:
                self.stats[tier.name].hits += 1
                if position:
                    copying = asyncio.create_task(
                        self._put(self._tiers[:position], key, result, owner)
                    )
                    self._copying.add(copying)
                    copying.add_done_callback(self._copying.discard)
                    await asyncio.sleep(0)  # runs it until a tier waits
                return result
            self.stats[tier.name].misses += 1
        return None

    async def put(self, key: str, result: Result, owner: Tenant = NO_TENANT) -> None:
        """Keep a result in all tiers, as one of the tenant that is named by its cache scope."""
        await self._put(self._tiers, key, result, owner)

    async def close(self) -> None:
        """Close all tiers, after all copies are written."""
        await asyncio.gather(*self._copying)
        for tier in self._tiers:
            with self._surviving(tier, "close"):
                await tier.close()

    async def _put(self, tiers: Sequence[Tier], key: str, result: Result, owner: Tenant) -> None:
        for tier in tiers:
            with self._surviving(tier, "put"):
                await tier.put(key, result, owner)

    @contextmanager
    def _surviving(self, tier: Tier, operation: str) -> Iterator[None]:
        """Count and suppress the errors of a tier; log the first failure and the recovery."""
        stats = self.stats[tier.name]
        try:
            yield
        except MalformedResultError as damage:
            stats.errors += 1
            _log.warning("cache_entry_damaged", tier=tier.name, error=str(damage))
        except Exception as error:
            stats.errors += 1
            if tier.name not in self._failing:
                self._failing[tier.name] = operation
                _log.warning(
                    "cache_tier_failing",
                    tier=tier.name,
                    operation=operation,
                    error_type=type(error).__name__,
                    error=str(error),
                )
        else:
            # A full disk can still be read: only the operation that failed proves a recovery.
            if self._failing.get(tier.name) == operation:
                del self._failing[tier.name]
                _log.info("cache_tier_works_again", tier=tier.name)
        finally:
            stats.size_bytes = tier.size_bytes
