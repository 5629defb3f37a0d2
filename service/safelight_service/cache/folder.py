"""ResultFolder: results on disk, in an index and blobs; safe against crashes and other processes.

A blob is complete before a row refers to it, and every read verifies it. So a crash costs a miss
at most. All writes hold the write lock of the index. A blob without a row was left by a process
that died.
"""

import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from safelight_service.cache import index as results_index
from safelight_service.cache.blobs import BlobFolder, make_private_folder
from safelight_service.cache.connection import (
    IndexConnection,
    connect_reader,
    connect_writer,
    is_disk_full,
    writing,
)
from safelight_service.cache.results import (
    MalformedResultError,
    Result,
    pack_header,
    unpack_header,
)
from safelight_service.core.shares import Shares
from safelight_service.core.tenant import Tenant

_SPARE_BYTES = 64 << 10
"""Room on a full disk for the rows of a result and SQLite's own files."""


class MissingResultError(Exception):
    """A row whose images are not there, or are larger than the settings allow."""


class ResultFolder:
    """Results of up to `max_bytes` in total.

    Beyond that, or on a full disk, the owner that exceeds its share most loses its least recently
    used results.

    One thread reads, and another writes: `read` and `close_reader` belong to the one, all other
    methods to the other. Neither waits for the other. All methods but the last two raise OSError
    and sqlite3.Error for any failure of the filesystem or of SQLite.
    """

    def __init__(
        self, folder: Path, max_bytes: int, *, lock_wait_s: float, read_wait_s: float
    ) -> None:
        self.size_bytes = 0
        """Bytes of all images; an image counts once for each result that has it."""
        self._folder = folder
        self._file = folder / "index.sqlite"
        self._blobs = BlobFolder(folder)
        self._max_bytes = max_bytes
        self._lock_wait_s = lock_wait_s
        self._reader = IndexConnection(
            self._file, lambda: connect_reader(self._file, read_wait_s), read_wait_s
        )
        self._writer = IndexConnection(self._file, self._connect_writer, lock_wait_s)

    def read(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: a file has changed.
            MissingResultError: a file is not there.
        """
        if not self._file.exists():
            return None
        with self._reader.session() as index:
            return self._read(index, key)

    def write(self, key: str, result: Result, owner: Tenant, uses: Iterable[str]) -> None:
        """Keep a result, unless it exceeds its owner's share of a full folder.

        Notes first that the keys in `uses` were used, the latest last.
        """
        with self._writer.session() as index:
            wanted_bytes = result.size_bytes + _SPARE_BYTES
            while True:
                try:
                    if self._make_room(index, key, result.size_bytes, owner, uses):
                        self._write(index, key, result, owner)
                    break
                except (OSError, sqlite3.OperationalError) as error:
                    if not (is_disk_full(error) and self._free(index, wanted_bytes, owner)):
                        raise
                    wanted_bytes *= 2
            self.size_bytes = results_index.count_bytes(index)

    def discard(self, key: str) -> None:
        """Remove a damaged result with all its images, unless it is whole again."""
        with self._writer.session() as index, writing(index):
            try:
                self._read(index, key)
                return
            except (MalformedResultError, MissingResultError):
                images = results_index.list_images(index, key)
            self._forget(index, key)
            for sha256 in images:
                self._blobs.remove(sha256)
            self.size_bytes = results_index.count_bytes(index)

    def open(self) -> None:
        """Connect for writing, and remove what a process left that died while it wrote."""
        with self._writer.session():
            pass

    def reopen(self) -> None:
        """Connect anew, which sets a damaged index aside."""
        self._writer.close()
        self.open()

    def close_reader(self) -> None:
        """Disconnect the reading thread."""
        self._reader.close()

    def close_writer(self, uses: Iterable[str]) -> None:
        """Note these uses, if the index can be written, and disconnect the writing thread."""
        try:
            if self._writer.is_open:
                with self._writer.session() as index, writing(index):
                    results_index.note_uses(index, uses)
        except sqlite3.OperationalError:  # locked or full, and the order is no great loss
            pass
        finally:
            self._writer.close()

    def _read(self, index: sqlite3.Connection, key: str) -> Result | None:
        line = results_index.find_header(index, key)
        if line is None:
            return None
        header = unpack_header(key, line)
        if header.size_bytes > self._max_bytes:  # written under other settings
            raise MissingResultError
        try:
            return header.with_images(
                self._blobs.read(image.sha256, image.size_bytes) for image in header.images
            )
        except FileNotFoundError:
            raise MissingResultError from None

    def _make_room(
        self,
        index: sqlite3.Connection,
        key: str,
        size_bytes: int,
        owner: Tenant,
        uses: Iterable[str],
    ) -> bool:
        """Evict results until one more fits; return whether its owner's share allows it."""
        with writing(index):
            results_index.note_uses(index, uses)
            self._forget(index, key)
            shares = results_index.count_shares(index, self._max_bytes)
            shares.add(owner, size_bytes)
            while shares.is_exceeded:
                if self._evict(index, shares) is None:
                    return False
        return True

    def _evict(self, index: sqlite3.Connection, shares: Shares) -> int | None:
        """Evict a result of the owner that exceeds its share most; return the bytes that it frees.

        None if the owner has no result, except perhaps one that is not written yet.
        """
        name = shares.find_excessive()
        oldest = results_index.find_oldest(index, name)
        if oldest is None:
            return None
        shares.take(name, oldest[1])
        return self._forget(index, oldest[0])

    def _write(self, index: sqlite3.Connection, key: str, result: Result, owner: Tenant) -> None:
        images = [image.sha256 for image in result.images]
        try:
            with writing(index):
                for image in result.images:
                    self._blobs.write(image.sha256, image.data)
                header = pack_header(key, result)
                results_index.add(index, key, header, result.size_bytes, images, owner)
        except Exception:
            with suppress(sqlite3.Error), writing(index):  # takes no space
                self._remove_unused(index, images)
            raise

    def _free(self, index: sqlite3.Connection, wanted_bytes: int, owner: Tenant) -> bool:
        """Evict results until the disk has this much more space for one of an owner.

        Returns whether any was freed. The shares are those of the present bytes, since the disk
        is full before `max_bytes` is reached.

        Files go first: they make the room that their rows need in order to be removed.
        """
        freed_bytes = 0
        try:
            with writing(index):
                shares = results_index.count_shares(index, results_index.count_bytes(index))
                shares.add(owner, wanted_bytes)
                while freed_bytes < wanted_bytes:
                    freed = self._evict(index, shares)
                    if freed is None:
                        break
                    freed_bytes += freed
        except sqlite3.OperationalError as error:
            if not is_disk_full(error):
                raise
        return freed_bytes > 0

    def _forget(self, index: sqlite3.Connection, key: str) -> int:
        """Remove a result and the images that no other has; return the freed bytes of the disk."""
        return sum(map(self._blobs.remove, results_index.forget(index, key)))

    def _remove_unused(self, index: sqlite3.Connection, images: Iterable[str]) -> None:
        for sha256 in images:
            if not results_index.is_used(index, sha256):
                self._blobs.remove(sha256)

    def _connect_writer(self) -> sqlite3.Connection:
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        make_private_folder(self._folder)
        try:
            index = connect_writer(self._file, self._lock_wait_s)
        except (OSError, sqlite3.OperationalError):
            if not self._free_blindly():
                raise
            index = connect_writer(self._file, self._lock_wait_s)
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
