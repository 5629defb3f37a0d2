"""Reads of the disk tier never wait for writes."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from safelight_service.cache import ResultCache
from safelight_service.cache.disk import READ_WAIT_S, DiskTier
from safelight_service.cache.memory import MemoryTier
from tests.service.cache.disk_tiers import LONG_S, ROOM, locked, open_tier
from tests.service.cache.sample_results import make_result

pytestmark = pytest.mark.anyio

RESULT, OTHER = make_result(b"picture" * 100, b"second" * 100), make_result(b"other" * 100)


async def test_a_result_is_found_while_writes_wait_for_the_lock(tmp_path: Path) -> None:
    async with open_tier(tmp_path, lock_wait_s=LONG_S, read_wait_s=READ_WAIT_S) as tier:
        await tier.put("key", RESULT)
        with locked(tmp_path):
            puts = [asyncio.create_task(tier.put(str(number), OTHER)) for number in range(3)]
            assert await tier.get("key") == RESULT
            assert await tier.get("0") == OTHER  # waits to be written
            assert await tier.get("none") is None
            assert not any(put.done() for put in puts)
        await asyncio.gather(*puts)
        assert await tier.get("2") == OTHER


async def test_a_result_is_found_although_the_folder_is_locked_since_before_the_start(
    tmp_path: Path,
) -> None:
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
    async with open_tier(tmp_path, lock_wait_s=LONG_S, read_wait_s=READ_WAIT_S) as tier:
        with locked(tmp_path):
            assert await tier.get("key") == RESULT


async def test_reads_that_are_locked_out_are_misses_whose_waits_do_not_add_up(
    tmp_path: Path,
) -> None:
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
    async with open_tier(tmp_path, read_wait_s=READ_WAIT_S) as tier:
        cache = ResultCache([tier])
        with locked(tmp_path, "EXCLUSIVE"):
            async with asyncio.timeout(10):  # one after the other takes twice as long
                found = await asyncio.gather(*(cache.get("key") for _ in range(200)))
            assert found == [None] * 200
        assert cache.stats["disk"].errors == 200


async def test_writes_that_are_locked_out_fail_together(tmp_path: Path) -> None:
    async with open_tier(tmp_path, lock_wait_s=0.2) as tier:
        await tier.put("key", RESULT)
        with locked(tmp_path):
            puts = [tier.put(str(number), OTHER) for number in range(100)]
            async with asyncio.timeout(10):  # one after the other takes twice as long
                failures = await asyncio.gather(*puts, return_exceptions=True)
        assert {type(failure) for failure in failures} == {sqlite3.OperationalError}
        assert await tier.get("0") is None


async def test_a_write_is_refused_while_too_many_bytes_wait(tmp_path: Path) -> None:
    large = make_result(bytes(40 << 20))
    async with open_tier(tmp_path, room=100 << 20, lock_wait_s=LONG_S) as tier:
        await tier.put("key", RESULT)
        with locked(tmp_path):
            waiting = asyncio.create_task(tier.put("first", large))
            await asyncio.sleep(0)
            with pytest.raises(BlockingIOError):
                await tier.put("second", large)
        await waiting
        await tier.put("third", RESULT)
        assert await tier.get("third") == RESULT


async def test_a_hit_in_a_slower_tier_does_not_wait_for_its_copy_on_disk(tmp_path: Path) -> None:
    slower = MemoryTier(ROOM)
    await slower.put("key", RESULT)
    tier = DiskTier(tmp_path, ROOM, lock_wait_s=LONG_S)
    await tier.put("other", OTHER)
    cache = ResultCache([tier, slower])
    with locked(tmp_path):
        assert await cache.get("key") == RESULT
        assert tier.size_bytes == OTHER.size_bytes
    await cache.close()
    async with open_tier(tmp_path) as tier:
        assert await tier.get("key") == RESULT
