import dataclasses
from pathlib import Path

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from safelight_service.cache import Result, ResultCache
from safelight_service.cache.disk import DiskTier
from safelight_service.cache.memory import MemoryTier
from safelight_service.core.tenant import Tenant
from safelight_service.settings import CacheSettings
from tests.service.cache.sample_results import make_result

pytestmark = pytest.mark.anyio

RESULT = make_result(b"picture", b"second")


class BrokenTier:
    """Tier that fails while it is broken, and otherwise stores nothing."""

    name = "broken"
    size_bytes = 0
    is_broken = True

    async def get(self, key: str) -> Result | None:
        self._fail()
        return None

    async def put(self, key: str, result: Result, owner: Tenant) -> None:
        self._fail()

    async def close(self) -> None:
        self._fail()

    def _fail(self) -> None:
        if self.is_broken:
            raise OSError("out of order")


async def test_results_are_found_in_memory_by_default() -> None:
    cache = ResultCache.open(CacheSettings())
    assert list(cache.stats) == ["memory"]
    assert await cache.get("key") is None
    await cache.put("key", RESULT)
    assert await cache.get("key") == RESULT
    stats = {"hits": 1, "misses": 1, "errors": 0, "size_bytes": RESULT.size_bytes}
    assert dataclasses.asdict(cache.stats["memory"]) == stats
    await cache.close()


async def test_the_settings_choose_the_tiers(tmp_path: Path) -> None:
    everything = CacheSettings(folder=tmp_path, redis_url=SecretStr("unix:///nowhere"))
    assert list(ResultCache.open(everything).stats) == ["memory", "disk", "redis"]
    assert not ResultCache.open(everything.model_copy(update={"enabled": False})).stats
    assert not ResultCache.open(CacheSettings(memory_mib=0)).stats


async def test_a_cache_without_tiers_finds_nothing() -> None:
    cache = ResultCache.open(CacheSettings(enabled=False))
    await cache.put("key", RESULT)
    assert await cache.get("key") is None
    await cache.close()


async def test_memory_forgets_the_least_recently_used_beyond_its_bytes() -> None:
    memory = MemoryTier(30)
    for key in ("a", "b", "c"):
        await memory.put(key, make_result(bytes(10)))
    await memory.get("a")
    await memory.put("d", make_result(bytes(11)))
    assert [key for key in "abcd" if await memory.get(key) is not None] == ["a", "d"]
    await memory.put("large", make_result(bytes(31)))
    assert await memory.get("large") is None
    assert memory.size_bytes == 21


async def test_a_faster_tier_is_given_what_a_slower_one_had(tmp_path: Path) -> None:
    disk = DiskTier(tmp_path, 1 << 20)
    await disk.put("key", RESULT)
    cache = ResultCache([MemoryTier(1 << 20), disk])
    assert await cache.get("key") == RESULT
    assert await cache.get("key") == RESULT
    hits_and_misses = {name: (stats.hits, stats.misses) for name, stats in cache.stats.items()}
    assert hits_and_misses == {"memory": (1, 1), "disk": (1, 0)}
    await cache.close()


async def test_the_other_tiers_work_on_beside_a_broken_one() -> None:
    cache = ResultCache([BrokenTier(), MemoryTier(1 << 20)])
    await cache.put("key", RESULT)
    assert await cache.get("key") == RESULT
    stats = cache.stats["broken"]
    assert (stats.hits, stats.misses, stats.errors) == (0, 1, 3)  # put, get, and put again
    await cache.close()


async def test_each_time_that_a_tier_starts_to_fail_there_is_one_warning() -> None:
    tier = BrokenTier()
    cache = ResultCache([tier])
    with capture_logs() as logs:
        for is_broken in (True, True, False, True, True):
            tier.is_broken = is_broken
            await cache.get("key")
            await cache.put("key", RESULT)
    failing, works_again = "cache_tier_failing", "cache_tier_works_again"
    assert [log["event"] for log in logs] == [failing, works_again, failing]
    assert logs[0] == {
        "event": failing,
        "log_level": "warning",
        "tier": "broken",
        "operation": "get",
        "error_type": "OSError",
        "error": "out of order",
    }


async def test_a_closed_cache_finds_nothing_and_raises_nothing(tmp_path: Path) -> None:
    cache = ResultCache.open(CacheSettings(folder=tmp_path))
    await cache.put("key", RESULT)
    await cache.close()
    assert await cache.get("key") is None
    await cache.put("key", RESULT)
    await cache.close()
