"""Digests of files are those of their contents, and files are read once."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from safelight_service.engine.models.digests import UNREADABLE, FileDigests

CONTENT, OTHER = b"weights", b"WEIGHTS"


def later_ns() -> int:
    """A clock by which the test's files were changed a while ago."""
    return time.time_ns() + 60 * 10**9


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def forge(store: Path, digest: str) -> None:
    """Replace all remembered digests, to tell them from those of contents."""
    store.write_text(json.dumps(dict.fromkeys(json.loads(store.read_text()), digest)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "digests.json"


def test_digests_are_those_of_the_contents_in_order(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(OTHER)
    assert FileDigests().find([file, other, file]) == [
        sha256(CONTENT),
        sha256(OTHER),
        sha256(CONTENT),
    ]


def test_an_unchanged_file_is_not_read_again(file: Path, store: Path) -> None:
    FileDigests(store, later_ns).find([file])
    forge(store, "0" * 64)
    assert FileDigests(store).find([file]) == ["0" * 64]


def replace_in_place(file: Path) -> None:
    stat = file.stat()
    file.write_bytes(OTHER)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replace_by_a_link(file: Path) -> None:
    other = file.with_name("elsewhere")
    other.write_bytes(OTHER)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("change", [replace_in_place, replace_by_a_link])
def test_a_changed_file_is_read_again(
    change: Callable[[Path], None], file: Path, store: Path
) -> None:
    FileDigests(store, later_ns).find([file])
    change(file)
    assert FileDigests(store).find([file]) == [sha256(OTHER)]


def test_a_file_that_has_just_changed_is_not_remembered(file: Path, store: Path) -> None:
    """Another change might come within the same tick of the file system's clock."""
    FileDigests(store).find([file])
    assert not store.exists()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": 1}', '{"a": "short"}', "\0\0", "[" * 100_000]
)
def test_a_damaged_store_is_replaced(content: str, file: Path, store: Path) -> None:
    store.parent.mkdir()
    store.write_text(content)
    assert FileDigests(store, later_ns).find([file]) == [sha256(CONTENT)]
    assert list(json.loads(store.read_text()).values()) == [sha256(CONTENT)]


def test_a_store_that_cannot_be_written_costs_only_time(file: Path) -> None:
    store = file / "digests.json"  # below a file
    assert FileDigests(store, later_ns).find([file]) == [sha256(CONTENT)]


def test_stores_that_are_written_at_the_same_time_stay_whole(tmp_path: Path, store: Path) -> None:
    files = [tmp_path / f"{number}" for number in range(16)]
    for each in files:
        each.write_bytes(each.name.encode())
    with ThreadPoolExecutor(8) as threads:
        found = threads.map(lambda each: FileDigests(store, later_ns).find([each]), files)
    assert list(found) == [[sha256(each.name.encode())] for each in files]
    known = json.loads(store.read_text())
    assert set(known.values()) <= {sha256(each.name.encode()) for each in files}
    assert [path.name for path in store.parent.iterdir()] == [store.name]


@pytest.mark.parametrize("length", [40, 64])
def test_a_blob_of_the_hub_is_not_read(length: int, tmp_path: Path) -> None:
    blob = tmp_path / "blobs" / ("a" * length)
    blob.parent.mkdir()
    blob.write_bytes(CONTENT)
    snapshot = tmp_path / "snapshots" / "weights.safetensors"
    snapshot.parent.mkdir()
    snapshot.symlink_to(blob)
    assert FileDigests().find([snapshot]) == [blob.name]


def test_a_file_that_is_gone_does_not_fail(tmp_path: Path) -> None:
    assert FileDigests().find([tmp_path / "gone"]) == [UNREADABLE]


def test_a_store_that_cannot_be_written_leaves_nothing_beside_it(file: Path, store: Path) -> None:
    store.mkdir(parents=True)
    for _ in range(2):
        assert FileDigests(store, later_ns).find([file]) == [sha256(CONTENT)]
    assert list(store.parent.iterdir()) == [store]
