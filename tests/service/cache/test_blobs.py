"""Odd files in place of the cache's own, and the rights of its own."""

import os
import socket
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from safelight_service.cache import ResultCache
from tests.service.cache.disk_tiers import blobs, open_tier
from tests.service.cache.sample_results import make_result

pytestmark = pytest.mark.anyio

DATA = b"second" * 100
RESULT = make_result(b"picture" * 100, DATA)


def put_sparse_file(path: Path) -> None:
    path.touch()
    os.truncate(path, 3 << 30)


def put_link(path: Path) -> None:
    """Link to a file with the right bytes: even that is not the one written."""
    target = path.parents[2] / "elsewhere"
    target.write_bytes(DATA)
    path.symlink_to(target)


def put_device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # endless zeros
    except PermissionError:
        pytest.skip("needs to make a device")


def put_socket(path: Path) -> None:
    short = Path(f"/proc/self/fd/{os.open(path.parent, os.O_PATH)}")  # an address is short
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(short / path.name))
    os.close(int(short.name))


def put_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


@pytest.mark.parametrize(
    "put_odd", [os.mkfifo, put_sparse_file, put_link, put_device, put_socket, put_folder]
)
async def test_something_odd_in_place_of_an_image_is_a_miss_and_removed_unread(
    put_odd: Callable[[Path], None], tmp_path: Path
) -> None:
    async with open_tier(tmp_path) as tier:
        cache = ResultCache([tier])
        await cache.put("key", RESULT)
        odd = next(blob for blob in blobs(tmp_path) if blob.name == RESULT.images[1].sha256)
        odd.unlink()
        put_odd(odd)
        tracemalloc.start()
        with capture_logs() as logs:
            assert await cache.get("key") is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert [log["event"] for log in logs] == ["cache_entry_damaged"]
        assert not blobs(tmp_path)
        await cache.put("key", RESULT)
        assert await cache.get("key") == RESULT


@pytest.mark.parametrize("put_odd", [os.mkfifo, put_folder], ids=["fifo", "folder"])
@pytest.mark.parametrize(
    "name", ["partial", "index.sqlite", "index.sqlite-journal", "index.sqlite-wal", "blobs"]
)
async def test_something_odd_in_place_of_another_file_is_replaced(
    name: str, put_odd: Callable[[Path], None], tmp_path: Path
) -> None:
    put_odd(tmp_path / name)
    async with open_tier(tmp_path) as tier:
        assert await tier.get("key") is None
        await tier.put("key", RESULT)
        assert await tier.get("key") == RESULT


async def test_something_odd_that_appears_between_two_writes_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "blobs" / RESULT.images[1].sha256[:2]
    async with open_tier(tmp_path) as tier:
        assert await tier.get("key") is None
        folder.touch()
        os.mkfifo(tmp_path / "partial")
        await tier.put("key", RESULT)
        assert await tier.get("key") == RESULT


async def test_a_result_that_is_larger_than_other_settings_allow_is_removed(tmp_path: Path) -> None:
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
    async with open_tier(tmp_path, room=RESULT.size_bytes - 1) as tier:
        assert await tier.get("key") is None
        assert not blobs(tmp_path)


@pytest.fixture(params=[0, 0o077, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> str:
    """The rights of a file or folder."""
    return stat.filemode(path.lstat().st_mode)


def modes(folder: Path) -> set[str]:
    """The rights of everything below a folder."""
    return {mode(path) for path in folder.rglob("*")}


PRIVATE = {"-rw-------", "drwx------"}


@pytest.mark.usefixtures("umask")
async def test_only_the_owner_can_read_whatever_the_umask(tmp_path: Path) -> None:
    existing, new = tmp_path, tmp_path / "new"
    existing.chmod(0o755)
    async with open_tier(new) as tier:
        await tier.put("key", RESULT)
        assert (new / "index.sqlite-wal").exists()
        assert modes(tmp_path) == PRIVATE
    assert mode(existing) == "drwxr-xr-x"


async def test_an_existing_folder_keeps_its_rights_and_what_is_in_it_becomes_private(
    tmp_path: Path,
) -> None:
    async with open_tier(tmp_path) as tier:
        await tier.put("key", RESULT)
    for path in (tmp_path, tmp_path / "blobs", tmp_path / "index.sqlite"):
        path.chmod(0o755)
    async with open_tier(tmp_path) as tier:
        assert await tier.get("key") == RESULT
        assert modes(tmp_path) == PRIVATE
    assert mode(tmp_path) == "drwxr-xr-x"
