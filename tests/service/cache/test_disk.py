"""The folder survives any damage; at worst, an image is made again."""

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from safelight_service.cache import ResultCache
from safelight_service.cache.disk import DiskTier
from safelight_service.cache.results import MalformedResultError, Result
from tests.service.cache import busy_writer, killed_writer
from tests.service.cache.disk_tiers import blobs, locked, open_tier
from tests.service.cache.sample_results import make_result
from tests.service.cache.small_disk import files_limited, filled, mounted, remount

pytestmark = pytest.mark.anyio

RESULT, OTHER = make_result(b"picture" * 100, b"second" * 100), make_result(b"other" * 100)


async def test_results_outlive_the_process(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    async with open_tier(folder) as tier:
        assert await tier.get("key") is None
        await tier.put("key", RESULT)
        assert await tier.get("key") == RESULT
    async with open_tier(folder) as tier:
        assert await tier.get("key") == RESULT
        assert tier.size_bytes == RESULT.size_bytes


async def test_a_result_can_be_replaced(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
        await tier.put("key", OTHER)
        assert await tier.get("key") == OTHER
        assert tier.size_bytes == OTHER.size_bytes
    assert len(blobs(tmp_path)) == 1


async def test_an_image_that_results_share_is_kept_until_the_last_is_gone(tmp_path: Path) -> None:
    shared, own = b"shared" * 10, b"own" * 10
    async with open_tier(tmp_path, room=200) as tier:
        await tier.put("first", make_result(shared, own))
        await tier.put("second", make_result(shared))
        assert len(blobs(tmp_path)) == 2
        await tier.put("third", make_result(bytes(100)))
        assert await tier.get("first") is None
        assert len(blobs(tmp_path)) == 2
        await tier.put("fourth", make_result(bytes(99)))
        assert len(blobs(tmp_path)) == 2
        assert await tier.get("second") is None


async def test_what_was_used_last_is_remembered_over_a_restart(tmp_path: Path) -> None:
    async with open_tier(tmp_path, room=20) as tier:
        await tier.put("first", make_result(b"1" * 10))
        await tier.put("second", make_result(b"2" * 10))
        await tier.get("first")
    async with open_tier(tmp_path, room=20) as tier:
        await tier.put("third", make_result(b"3" * 10))
        assert await tier.get("first") is not None
        assert await tier.get("second") is None


@pytest.mark.parametrize("reopens", [False, True])
async def test_the_wall_clock_does_not_choose_what_makes_room(
    reopens: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set back a day, it would make the newest results the oldest."""
    results = [make_result(bytes([number]) * 10) for number in range(4)]

    async def put(tier: DiskTier, number: int) -> None:
        day_s, now_s = 86_400, 1.9e9
        monkeypatch.setattr(time, "time", lambda: now_s - number * day_s)
        monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * (now_s - number * day_s)))
        await tier.put(str(number), results[number])

    async with open_tier(tmp_path, room=20) as tier:
        for number in range(3):
            await put(tier, number)
        if not reopens:
            await put(tier, 3)
    async with open_tier(tmp_path, room=20) as tier:
        if reopens:
            await put(tier, 3)
        assert [await tier.get(str(number)) for number in range(4)] == [None, None, *results[2:]]


async def test_a_former_index_is_continued_and_its_future_uses_are_not_the_latest(
    tmp_path: Path,
) -> None:
    async with open_tier(tmp_path, room=20) as tier:
        await tier.put("first", make_result(b"1" * 10))
        await tier.put("second", make_result(b"2" * 10))
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as index, index:
        index.execute("ALTER TABLE results RENAME COLUMN recency TO used_at_ns")
        index.execute("UPDATE results SET used_at_ns = used_at_ns + 8e18")
        index.execute("DROP INDEX results_by_owner")
        index.execute("ALTER TABLE results DROP COLUMN owner")
        index.execute("ALTER TABLE results DROP COLUMN weight")
    async with open_tier(tmp_path, room=20) as tier:
        await tier.put("third", make_result(b"3" * 10))
        assert await tier.get("second") is not None
        await tier.put("fourth", make_result(b"4" * 10))
        kept = [await tier.get(key) is not None for key in ("first", "second", "third", "fourth")]
        assert kept == [False, True, False, True]


OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["get", "put"]), st.sampled_from("abcdef"), st.integers(1, 60))
)


@settings(max_examples=50)  # each opens a folder
@given(OPERATIONS)
def test_the_least_recently_used_results_make_room(operations: list[tuple[str, str, int]]) -> None:
    room = 100
    kept: OrderedDict[str, Result] = OrderedDict()

    def expect_put(key: str, result: Result) -> None:
        kept.pop(key, None)
        kept[key] = result
        while sum(each.size_bytes for each in kept.values()) > room:
            kept.popitem(last=False)

    async def act(folder: Path) -> None:
        async with open_tier(folder, room) as tier:
            for operation, key, size in operations:
                if operation == "put":
                    expect_put(key, make_result(bytes(size)))  # equal sizes share their image
                    await tier.put(key, make_result(bytes(size)))
                else:
                    assert await tier.get(key) == kept.get(key)
                    if key in kept:
                        kept.move_to_end(key)
                assert tier.size_bytes == sum(result.size_bytes for result in kept.values())
            sizes = {result.size_bytes for result in kept.values()}
            assert sorted(file.stat().st_size for file in blobs(folder)) == sorted(sizes)
            for key in "abcdef":
                assert await tier.get(key) == kept.get(key)

    with TemporaryDirectory() as folder:
        asyncio.run(act(Path(folder)))


async def test_a_result_larger_than_the_room_is_not_kept(tmp_path: Path) -> None:
    async with open_tier(tmp_path, room=100) as tier:
        await tier.put("small", make_result(bytes(100)))
        await tier.put("large", make_result(bytes(101)))
        assert await tier.get("large") is None
        assert await tier.get("small") is not None


@pytest.mark.parametrize(
    ("event", "count", "files"),
    [("os.rename", 1, 0), ("open", 2, 1), ("os.rename", 2, 1), ("open", 4, 2)],
    ids=[
        "before the first rename",
        "after the first rename",
        "before the second rename",
        "between the last rename and the row",
    ],
)
async def test_a_process_that_is_killed_while_it_writes_leaves_a_miss_and_no_files(
    event: str, count: int, files: int, tmp_path: Path
) -> None:
    """Fault 23: kill -9 between writing and renaming, and between renaming and the row."""
    command = [sys.executable, "-m", killed_writer.__name__, str(tmp_path), event, str(count)]
    process = await asyncio.create_subprocess_exec(*command)
    assert await process.wait() == -signal.SIGKILL
    assert len(blobs(tmp_path)) == files
    assert (tmp_path / "partial").exists() == (event == "os.rename")

    async with open_tier(tmp_path) as tier:
        assert await tier.get("key") is None
        assert not (tmp_path / "partial").exists()
        assert not blobs(tmp_path)
        await tier.put("key", killed_writer.RESULT)
        assert await tier.get("key") == killed_writer.RESULT


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("damage", [truncate, flip])
async def test_a_damaged_image_is_a_miss_that_is_counted_removed_and_made_again(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    """Fault 24: a file is truncated, or a bit of it flipped."""
    async with open_tier(tmp_path) as tier:
        cache = ResultCache([tier])
        await cache.put("key", RESULT)
        damage(blobs(tmp_path)[1])
        with capture_logs() as logs:
            assert await cache.get("key") is None
            assert await cache.get("key") is None
        assert [log["event"] for log in logs] == ["cache_entry_damaged"]
        assert not blobs(tmp_path)
        await cache.put("key", RESULT)
        assert await cache.get("key") == RESULT
    stats = cache.stats["disk"]
    assert (stats.hits, stats.misses, stats.errors) == (1, 2, 1)
    assert stats.size_bytes == RESULT.size_bytes


async def test_a_row_that_was_changed_is_a_miss(tmp_path: Path) -> None:
    """Fault 24: the metadata of the image is damaged, not the image."""
    async with open_tier(tmp_path) as tier:
        await tier.put("key", OTHER)
    with closing(sqlite3.connect(tmp_path / "index.sqlite")) as index, index:
        index.execute("UPDATE results SET header = CAST(replace(header, '64', '65') AS BLOB)")
    async with open_tier(tmp_path) as tier:
        with pytest.raises(MalformedResultError):
            await tier.get("key")
        assert await tier.get("key") is None


async def test_an_image_that_is_not_there_is_just_a_miss(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
        blobs(tmp_path)[0].unlink()
        assert await tier.get("key") is None
        assert tier.size_bytes == 0
        assert not blobs(tmp_path)


def overwrite(index: Path) -> None:
    index.write_bytes(b"garbage" * 1000)


def overwrite_a_page(index: Path) -> None:
    data = bytearray(index.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    index.write_bytes(data)


@pytest.mark.parametrize("damage", [overwrite, overwrite_a_page])
async def test_a_corrupt_index_is_set_aside_and_begun_anew(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    """Fault 24: the index instead of an image."""
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
    damage(tmp_path / "index.sqlite")
    async with open_tier(tmp_path) as tier:
        cache = ResultCache([tier])
        with capture_logs() as logs:
            assert await cache.get("key") is None
            assert not blobs(tmp_path)
            await cache.put("key", RESULT)
            assert await cache.get("key") == RESULT
    assert [log["event"] for log in logs] == ["cache_index_set_aside"]
    assert (tmp_path / "index.damaged").exists()


async def test_a_folder_that_is_removed_while_it_is_used_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    async with open_tier(folder) as tier:
        cache = ResultCache([tier])
        await cache.put("key", RESULT)
        shutil.rmtree(folder)
        assert await cache.get("key") is None
        await cache.put("key", RESULT)  # finds that the folder is gone
        await cache.put("key", RESULT)
        assert await cache.get("key") == RESULT


async def test_an_index_that_another_process_set_aside_is_left(tmp_path: Path) -> None:
    index = tmp_path / "index.sqlite"
    async with open_tier(tmp_path) as first:
        await first.put("before", RESULT)
        assert await first.get("before") == RESULT
        index.replace(tmp_path / "index.damaged")
        async with open_tier(tmp_path) as second:
            assert await second.get("before") is None
            await first.put("after", OTHER)
            assert await first.get("before") is None
            assert await second.get("after") == OTHER
    async with open_tier(tmp_path) as third:
        assert await third.get("after") == OTHER


async def test_processes_can_share_a_folder(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", busy_writer.__name__, str(tmp_path), name
        )
        for name in names
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    async with open_tier(tmp_path, busy_writer.ROOM) as tier:
        keys = [f"{name}{number}" for name in names for number in range(busy_writer.COUNT)]
        kept = [key for key in keys if await tier.get(key) is not None]
        assert kept
        assert all([await tier.get(key) == busy_writer.result_of(key) for key in kept])
        assert len(blobs(tmp_path)) == len(kept) + 1
        await tier.put("last", busy_writer.result_of("last"))
        assert tier.size_bytes <= busy_writer.ROOM


async def test_a_process_that_hangs_while_it_writes_holds_up_no_reader(tmp_path: Path) -> None:
    async with open_tier(tmp_path, lock_wait_s=0) as tier:
        await tier.put("key", RESULT)
        with locked(tmp_path):
            assert await tier.get("key") == RESULT
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await tier.put("other", OTHER)
        await tier.put("other", OTHER)
        assert await tier.get("other") == OTHER


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    try:
        with mounted(tmp_path):
            yield tmp_path
    except PermissionError:
        pytest.skip("needs to mount a tmpfs")


async def test_a_full_disk_evicts_and_keeps_results_again(small_disk: Path) -> None:
    """Fault 26: ENOSPC on a tmpfs of 4 MiB, far below `max_bytes`."""
    results = [make_result(os.urandom(100_000), os.urandom(200_000)) for _ in range(30)]
    async with open_tier(small_disk, room=1 << 30) as tier:
        cache = ResultCache([tier])
        for number, result in enumerate(results):
            await cache.put(str(number), result)
            assert await cache.get(str(number)) == result
            if number:
                assert await cache.get("1") == results[1]  # used all the time
        kept = [number for number in range(30) if await cache.get(str(number)) is not None]
        assert kept == [1, *range(kept[1], 30)]
        assert len(blobs(small_disk)) == 2 * len(kept)
        assert len(kept) > 5
        assert cache.stats["disk"].errors == 0


async def test_a_disk_that_others_fill_costs_old_results_only(small_disk: Path) -> None:
    async with open_tier(small_disk) as tier:
        cache = ResultCache([tier])
        for number in range(8):
            await cache.put(str(number), make_result(os.urandom(100_000)))
        with filled(small_disk):
            await cache.put("key", RESULT)
            assert await cache.get("key") == RESULT
            assert await cache.get("0") is None
            assert await cache.get("7") is not None
        assert cache.stats["disk"].errors == 0


async def test_a_disk_that_is_full_at_the_start_costs_results_but_not_the_tier(
    small_disk: Path,
) -> None:
    async with open_tier(small_disk) as tier:
        for number in range(8):
            await tier.put(str(number), make_result(os.urandom(100_000)))
    with filled(small_disk):
        async with open_tier(small_disk) as tier:
            cache = ResultCache([tier])
            assert [await cache.get(str(number)) for number in range(8)].count(None) in (1, 2)
            await cache.put("key", RESULT)
            assert await cache.get("key") == RESULT


async def test_a_failing_write_costs_what_was_to_be_written_and_one_warning(
    tmp_path: Path,
) -> None:
    """Fault 26: EFBIG, in the second image of two."""
    async with open_tier(tmp_path) as tier:
        cache = ResultCache([tier])
        await cache.put("key", OTHER)
        with capture_logs() as logs:
            with files_limited(len(RESULT.images[0].data)):
                await cache.put("other", RESULT)
                assert await cache.get("key") == OTHER
                await cache.put("other", RESULT)
                assert await cache.get("other") is None
                assert len(blobs(tmp_path)) == 1
            await cache.put("other", RESULT)
            assert await cache.get("other") == RESULT
    assert not (tmp_path / "partial").exists()
    assert [log["event"] for log in logs] == ["cache_tier_failing", "cache_tier_works_again"]
    assert logs[0]["log_level"] == "warning"
    assert cache.stats["disk"].errors == 2


async def test_a_folder_that_cannot_be_written_costs_one_warning(small_disk: Path) -> None:
    async with open_tier(small_disk) as tier:
        await tier.put("key", RESULT)
    remount(small_disk, "ro")
    async with open_tier(small_disk) as tier:
        cache = ResultCache([tier])
        with capture_logs() as logs:
            for _ in range(2):
                assert await cache.get("key") is None
                await cache.put("key", RESULT)
    assert [log["event"] for log in logs] == ["cache_tier_failing"]


async def test_a_path_that_is_no_folder_costs_one_warning(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    async with open_tier(tmp_path / "file") as tier:
        cache = ResultCache([tier])
        with capture_logs() as logs:
            for _ in range(2):
                assert await cache.get("key") is None
                await cache.put("key", RESULT)
    assert [log["event"] for log in logs] == ["cache_tier_failing"]
    assert (tmp_path / "file").is_file()
