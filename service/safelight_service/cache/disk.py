"""Disk tier: results in a folder, which outlive the process and can be shared on a host.

`index.sqlite` lists the results; images are files named by their SHA-256. A file is complete
before a row refers to it, and every read verifies it. So a crash costs a miss at most. All writes
hold the write lock of the index. A file without a row was left by a process that died.
"""

import asyncio
import errno
import shutil
import sqlite3
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from safelight_service.cache import index as results_index
from safelight_service.cache.blobs import BlobFolder, make_private_folder
from safelight_service.cache.index import IndexConnection, is_disk_full, writing
from safelight_service.cache.results import (
    MalformedResultError,
    Result,
    pack_header,
    unpack_header,
)

LOCK_WAIT_S = 1.0
"""Longest wait of a write for the lock of another process."""

READ_WAIT_S = 0.1
"""Longest wait of a read for a lock or a repair."""

_MAX_WAITING_BYTES = 64 << 20
"""Most bytes of results that wait to be written."""

_SPARE_BYTES = 64 << 10
"""Room on a full disk for the rows of a result and SQLite's own files."""

_T = TypeVar("_T")


class _MissingError(Exception):
    """A row without its images."""


class DiskTier:
    """Keeps results of up to `max_bytes` in total; evicts the least recently used.

    A full disk evicts, too. Reads and writes have a thread and a connection each, so no read
    waits for a write. A read writes nothing: uses are noted with the next write. Use it on one
    event loop.
    """

    name = "disk"

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        *,
        lock_wait_s: float = LOCK_WAIT_S,
        read_wait_s: float = READ_WAIT_S,
    ) -> None:
        self.size_bytes = 0
        """Bytes of all images; an image counts once for each result that has it."""
        self._folder = folder
        self._file = folder / "index.sqlite"
        self._blobs = BlobFolder(folder)
        self._max_bytes = max_bytes
        self._lock_wait_s = lock_wait_s
        self._read_wait_s = read_wait_s
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="safelight-disk-cache-read")
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="safelight-disk-cache-write")
        self._reader = IndexConnection(self._file, self._connect_reader, read_wait_s)
        self._writer = IndexConnection(self._file, self._connect_writer, lock_wait_s)
        self._has_begun = False
        self._waiting_bytes = 0
        self._uses: dict[str, int] = {}
        """Results used since the last write, the latest last, with a number for each use."""
        self._use_count = 0

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: a file has changed; the result is removed.
            OSError, sqlite3.Error: any filesystem or SQLite failure.
        """
        if not self._has_begun:
            self._has_begun = True
            await self._repair(self._open)
        try:
            result = await _run(self._readers, lambda: self._get(key))
        except MalformedResultError:
            await self._repair(lambda: self._discard(key))
            raise
        except _MissingError:
            await self._repair(lambda: self._discard(key))
            return None
        except sqlite3.OperationalError:  # locked or full, which passes
            raise
        except sqlite3.DatabaseError:
            await self._repair(self._reopen)
            return None
        if result is not None:
            self._uses.pop(key, None)
            self._use_count += 1
            self._uses[key] = self._use_count
        return result

    async def put(self, key: str, result: Result) -> None:
        """Keep a result, unless it is larger than `max_bytes`.

        Raises:
            OSError, sqlite3.Error: any filesystem or SQLite failure, or too many writes at once.
        """
        size_bytes = result.size_bytes
        if size_bytes > self._max_bytes:
            return
        if self._waiting_bytes and self._waiting_bytes + size_bytes > _MAX_WAITING_BYTES:
            raise BlockingIOError(errno.EAGAIN, "too many results wait to be written")
        self._waiting_bytes += size_bytes
        uses = dict(self._uses)
        try:
            await _run(self._writers, lambda: self._put(key, result, uses))
        finally:
            self._waiting_bytes -= size_bytes
        self._uses = {key: use for key, use in self._uses.items() if uses.get(key) != use}

    async def close(self) -> None:
        """Note the last uses, and end the threads."""
        try:
            await _run(self._readers, self._reader.close)
            await _run(self._writers, lambda: self._close(self._uses))
        finally:
            self._readers.shutdown()
            self._writers.shutdown()

    async def _repair(self, work: Callable[[], object]) -> None:
        """Let the writing thread do this, and wait for it no longer than a read may."""
        repair = asyncio.get_running_loop().run_in_executor(self._writers, work)
        repair.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([repair], timeout=self._read_wait_s)

    def _get(self, key: str) -> Result | None:
        if not self._file.exists():
            return None
        with self._reader.session() as index:
            return self._read(index, key)

    def _read(self, index: sqlite3.Connection, key: str) -> Result | None:
        line = results_index.find_header(index, key)
        if line is None:
            return None
        header = unpack_header(key, line)
        if header.size_bytes > self._max_bytes:  # written under other settings
            raise _MissingError
        try:
            return header.with_images(
                self._blobs.read(image.sha256, image.size_bytes) for image in header.images
            )
        except FileNotFoundError:
            raise _MissingError from None

    def _put(self, key: str, result: Result, uses: Iterable[str]) -> None:
        with self._writer.session() as index:
            wanted_bytes = result.size_bytes + _SPARE_BYTES
            while True:
                try:
                    self._make_room(index, key, result.size_bytes, uses)
                    self._write(index, key, result)
                    break
                except (OSError, sqlite3.OperationalError) as error:
                    if not (is_disk_full(error) and self._free(index, wanted_bytes)):
                        raise
                    wanted_bytes *= 2
            self.size_bytes = results_index.count_bytes(index)

    def _make_room(
        self, index: sqlite3.Connection, key: str, size_bytes: int, uses: Iterable[str]
    ) -> None:
        with writing(index):
            results_index.note_uses(index, uses)
            self._forget(index, key)
            excess = results_index.count_bytes(index) + size_bytes - self._max_bytes
            while excess > 0 and (oldest := results_index.find_oldest(index)):
                self._forget(index, oldest[0])
                excess -= oldest[1]

    def _write(self, index: sqlite3.Connection, key: str, result: Result) -> None:
        images = [image.sha256 for image in result.images]
        try:
            with writing(index):
                for image in result.images:
                    self._blobs.write(image.sha256, image.data)
                header = pack_header(key, result)
                results_index.add(index, key, header, result.size_bytes, images)
        except Exception:
            with suppress(sqlite3.Error), writing(index):  # takes no space
                self._remove_unused(index, images)
            raise

    def _free(self, index: sqlite3.Connection, wanted_bytes: int) -> bool:
        """Evict results until the disk has this much more space; return whether any was freed.

        Files go first: they make the room that their rows need in order to be removed.
        """
        freed_bytes = 0
        try:
            with writing(index):
                while freed_bytes < wanted_bytes and (oldest := results_index.find_oldest(index)):
                    freed_bytes += self._forget(index, oldest[0])
        except sqlite3.OperationalError as error:
            if not is_disk_full(error):
                raise
        return freed_bytes > 0

    def _discard(self, key: str) -> None:
        """Remove a damaged result with all its images, unless it is whole again."""
        with self._writer.session() as index, writing(index):
            try:
                self._read(index, key)
                return
            except (MalformedResultError, _MissingError):
                images = results_index.list_images(index, key)
            self._forget(index, key)
            for sha256 in images:
                self._blobs.remove(sha256)
            self.size_bytes = results_index.count_bytes(index)

    def _forget(self, index: sqlite3.Connection, key: str) -> int:
        """Remove a result and the images that no other has; return the freed bytes of the disk."""
        return sum(map(self._blobs.remove, results_index.forget(index, key)))

    def _remove_unused(self, index: sqlite3.Connection, images: Iterable[str]) -> None:
        for sha256 in images:
            if not results_index.is_used(index, sha256):
                self._blobs.remove(sha256)

    def _open(self) -> None:
        with self._writer.session():
            pass

    def _reopen(self) -> None:
        self._writer.close()
        self._open()

    def _close(self, uses: Iterable[str]) -> None:
        try:
            if self._writer.is_open:
                with self._writer.session() as index, writing(index):
                    results_index.note_uses(index, uses)
        except sqlite3.OperationalError:  # locked or full, and the order is no great loss
            pass
        finally:
            self._writer.close()

    def _connect_reader(self) -> sqlite3.Connection:
        return results_index.connect_reader(self._file, self._read_wait_s)

    def _connect_writer(self) -> sqlite3.Connection:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        make_private_folder(self._folder)
        try:
            index = results_index.connect_writer(self._file, self._lock_wait_s)
        except (OSError, sqlite3.OperationalError):
            if not self._free_blindly():
                raise
            index = results_index.connect_writer(self._file, self._lock_wait_s)
        try:
            with writing(index):  # remove what a process left that died while it wrote
                self._blobs.prepare()
                self._remove_unused(index, self._blobs)
            self.size_bytes = results_index.count_bytes(index)
        except BaseException:
            index.close()
            raise
        return index

    def _free_blindly(self) -> bool:
        """Remove any images from a full disk until SQLite's own files fit; return whether it was.

        The index cannot be read without them.
        """
        freed_bytes = 0
        if shutil.disk_usage(self._folder).free >= _SPARE_BYTES:
            return False
        for sha256 in self._blobs:
            freed_bytes += self._blobs.remove(sha256)
            if freed_bytes >= 2 * _SPARE_BYTES:
                break
        return freed_bytes > 0


async def _run(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
