"""Shares of the cache: no owner evicts the results of another one."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from safelight_service.cache.disk import DiskTier
from safelight_service.cache.memory import MemoryTier
from safelight_service.core.tenant import Tenant
from tests.service.cache.disk_tiers import locked, open_tier
from tests.service.cache.sample_results import make_result
from tests.service.cache.small_disk import mounted

pytestmark = pytest.mark.anyio

FLOOD, WEAK, STRONG = Tenant("flood"), Tenant("weak"), Tenant("strong", 3.0)
Opener = Callable[[], AbstractAsyncContextManager[MemoryTier | DiskTier]]


@pytest.fixture(params=["memory", "disk"])
def open_small(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Return a function that opens a tier for 80 bytes."""

    @asynccontextmanager
    async def open_memory() -> AsyncIterator[MemoryTier]:
        yield MemoryTier(80)

    return open_memory if request.param == "memory" else lambda: open_tier(tmp_path, room=80)


async def put(tier: MemoryTier | DiskTier, owner: Tenant, count: int, size_bytes: int = 10) -> None:
    """Put results of distinct bytes."""
    for number in range(count):
        key = f"{owner.name}-{number}"
        await tier.put(key, make_result(os.urandom(size_bytes)), owner)


async def kept(tier: MemoryTier | DiskTier, owner: Tenant) -> list[int]:
    """Return the numbers of the results that an owner still has."""
    return [each for each in range(10) if await tier.get(f"{owner.name}-{each}") is not None]


async def test_no_owner_evicts_the_results_of_another(open_small: Opener) -> None:
    async with open_small() as tier:
        await put(tier, WEAK, 2)
        await put(tier, FLOOD, 10)
        assert await kept(tier, WEAK) == [0, 1]
        assert await kept(tier, FLOOD) == [4, 5, 6, 7, 8, 9]
        assert tier.size_bytes == 80


async def test_an_owner_that_comes_late_gets_its_share_by_its_weight(open_small: Opener) -> None:
    async with open_small() as tier:
        await put(tier, FLOOD, 10)
        await put(tier, STRONG, 10)
        assert (len(await kept(tier, FLOOD)), len(await kept(tier, STRONG))) == (2, 6)


async def test_a_result_beyond_its_owners_share_of_a_full_tier_is_not_kept(
    open_small: Opener,
) -> None:
    async with open_small() as tier:
        await put(tier, WEAK, 4)
        await put(tier, FLOOD, 1, size_bytes=60)
        assert await kept(tier, WEAK) == [0, 1, 2, 3]
        assert await kept(tier, FLOOD) == []
        assert tier.size_bytes == 40


async def test_the_disk_knows_the_owners_after_a_restart(tmp_path: Path) -> None:
    async with open_tier(tmp_path, room=80) as tier:
        await put(tier, STRONG, 6)
    async with open_tier(tmp_path, room=80) as tier:
        await put(tier, FLOOD, 10)
        assert await kept(tier, STRONG) == [0, 1, 2, 3, 4, 5]


async def test_a_full_disk_takes_from_the_owner_that_has_most(tmp_path: Path) -> None:
    try:
        with mounted(tmp_path):
            async with open_tier(tmp_path, room=1 << 30) as tier:
                await put(tier, WEAK, 4, size_bytes=100_000)
                await put(tier, FLOOD, 40, size_bytes=150_000)
                assert await kept(tier, WEAK) == [0, 1, 2, 3]
                assert await tier.get("flood-39") is not None
    except PermissionError:
        pytest.skip("needs to mount a tmpfs")


async def test_results_that_wait_to_be_written_leave_room_for_other_owners(
    tmp_path: Path,
) -> None:
    large, medium = make_result(bytes(40 << 20)), make_result(bytes(30 << 20))
    async with open_tier(tmp_path, room=200 << 20, lock_wait_s=0.2) as tier:
        await tier.put("first", make_result(b"1"), WEAK)
        with locked(tmp_path):
            puts = [asyncio.create_task(tier.put("second", large, FLOOD))]
            await asyncio.sleep(0)
            with pytest.raises(BlockingIOError):
                await tier.put("third", large, FLOOD)
            puts.append(asyncio.create_task(tier.put("fourth", medium, WEAK)))
            await asyncio.sleep(0)
            assert await tier.get("fourth") == medium  # waits to be written
            failures = await asyncio.gather(*puts, return_exceptions=True)
        assert {type(failure) for failure in failures} == {sqlite3.OperationalError}
