"""Disk tier: results in a folder, which outlive the process and can be shared on a host.

`index.sqlite` lists the results; images are files named by their SHA-256. A file is complete
before a row refers to it, and every read verifies it. So a crash costs a miss at most. All writes
hold the write lock of the index. A file without a row was left by a process that died.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import structlog

from safelight_service.cache.results import MalformedResultError, Result, pack_header, unpack

_log = structlog.get_logger()

_BUSY_S = 1.0
"""Longest wait for the write lock."""

_SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS results (
        key TEXT PRIMARY KEY, header BLOB NOT NULL, size_bytes INTEGER NOT NULL,
        used_at_ns INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS results_by_use ON results (used_at_ns, size_bytes);
    CREATE TABLE IF NOT EXISTS images (
        key TEXT REFERENCES results ON DELETE CASCADE, position INTEGER, sha256 TEXT NOT NULL,
        PRIMARY KEY (key, position)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS images_by_sha256 ON images (sha256);
"""

_FIND = """
    SELECT header, sha256 FROM results JOIN images USING (key) WHERE key = ? ORDER BY position
"""

_T = TypeVar("_T")


class DiskTier:
    """Keeps results of up to `max_bytes` in total; evicts the least recently used.

    All work is done in one thread. After a failure the next operation opens the folder again.
    """

    name = "disk"

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.size_bytes = 0
        """Bytes of all images; an image counts once for each result that has it."""
        self._folder = folder
        self._index_file = folder / "index.sqlite"
        self._partial_file = folder / "partial"
        self._max_bytes = max_bytes
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="safelight-disk-cache")
        self._index: sqlite3.Connection | None = None
        self._used_at_ns: dict[str, int] = {}
        """Uses since the last write; reads do not write, so they never wait for the lock."""

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: a file has changed; the result has been removed.
            OSError, sqlite3.Error: any filesystem or SQLite failure.
        """
        return await self._run(lambda: self._get(key))

    async def put(self, key: str, result: Result) -> None:
        """Keep a result, unless it is larger than `max_bytes`.

        Raises:
            OSError, sqlite3.Error: any filesystem or SQLite failure.
        """
        if result.size_bytes <= self._max_bytes:
            await self._run(lambda: self._put(key, result))

    async def close(self) -> None:
        """Write the times of the last uses, and end the thread."""
        try:
            await self._run(self._close)
        finally:
            self._worker.shutdown()

    async def _run(self, work: Callable[[], _T]) -> _T:
        def run() -> _T:
            try:
                return work()
            except sqlite3.OperationalError:  # locked or full, which passes
                raise
            except (sqlite3.DatabaseError, FileNotFoundError):  # damaged, or the folder is gone
                self._disconnect()
                raise

        return await asyncio.get_running_loop().run_in_executor(self._worker, run)

    def _get(self, key: str) -> Result | None:
        rows = self._open().execute(_FIND, (key,)).fetchall()
        if not rows:
            return None
        files = [self._file(sha256) for _, sha256 in rows]
        try:
            result = unpack(key, rows[0][0] + b"".join(file.read_bytes() for file in files))
        except FileNotFoundError:
            self._discard(key, files)
            return None
        except MalformedResultError:
            self._discard(key, files)
            raise
        self._used_at_ns[key] = time.time_ns()
        return result

    def _put(self, key: str, result: Result) -> None:
        index = self._open()
        with _writing(index):  # evict by the latest uses
            self._note_uses(index)
            self._forget(index, key)
            self._make_room(index, result.size_bytes)
        with _writing(index):
            for image in result.images:
                self._write(self._file(image.sha256), image.data)
            index.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)",
                (key, pack_header(key, result), result.size_bytes, time.time_ns()),
            )
            index.executemany(
                "INSERT INTO images VALUES (?, ?, ?)",
                [(key, position, image.sha256) for position, image in enumerate(result.images)],
            )
        self.size_bytes = _count_bytes(index)

    def _close(self) -> None:
        if self._index is None:
            return
        try:
            with _writing(self._index):
                self._note_uses(self._index)
        finally:
            self._disconnect()

    def _open(self) -> sqlite3.Connection:
        if self._index is None:
            self._folder.mkdir(0o700, parents=True, exist_ok=True)  # PNGs hold prompts
            try:
                self._index = self._connect()
            except sqlite3.OperationalError:  # locked, full or read-only
                raise
            except sqlite3.DatabaseError as damage:
                self._set_index_aside(damage)
                self._index = self._connect()
            self.size_bytes = _count_bytes(self._index)
        return self._index

    def _connect(self) -> sqlite3.Connection:
        index = sqlite3.connect(self._index_file, timeout=_BUSY_S, isolation_level=None)
        try:
            index.executescript(_SCHEMA)
            [verdict] = index.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            self._sweep(index)
        except BaseException:
            index.close()
            raise
        return index

    def _disconnect(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    def _set_index_aside(self, damage: sqlite3.DatabaseError) -> None:
        """Start a new index; the next sweep removes the images, which have no rows any more."""
        aside = self._index_file.with_suffix(".damaged")
        self._index_file.replace(aside)
        for suffix in ("-wal", "-shm"):
            Path(f"{self._index_file}{suffix}").unlink(missing_ok=True)
        _log.warning("cache_index_set_aside", path=str(aside), error=str(damage))

    def _sweep(self, index: sqlite3.Connection) -> None:
        """Remove the files of a process that died while it wrote."""
        with _writing(index):
            self._partial_file.unlink(missing_ok=True)
            for file in self._folder.glob(f"blobs/??/{'?' * 64}"):
                _remove_unless_used(index, file)

    def _make_room(self, index: sqlite3.Connection, size_bytes: int) -> None:
        excess = _count_bytes(index) + size_bytes - self._max_bytes
        while excess > 0:
            key, freed = index.execute(
                "SELECT key, size_bytes FROM results ORDER BY used_at_ns LIMIT 1"
            ).fetchone()
            self._forget(index, key)
            excess -= freed

    def _forget(self, index: sqlite3.Connection, key: str) -> None:
        """Remove a result, and its images unless other results have them."""
        rows = index.execute("SELECT sha256 FROM images WHERE key = ?", (key,)).fetchall()
        index.execute("DELETE FROM results WHERE key = ?", (key,))
        for (sha256,) in rows:
            _remove_unless_used(index, self._file(sha256))

    def _discard(self, key: str, files: Sequence[Path]) -> None:
        """Remove a damaged result with all its images."""
        index = self._open()
        with _writing(index):
            for file in files:
                file.unlink(missing_ok=True)
            self._forget(index, key)
        self.size_bytes = _count_bytes(index)

    def _note_uses(self, index: sqlite3.Connection) -> None:
        index.executemany(
            "UPDATE results SET used_at_ns = max(used_at_ns, ?) WHERE key = ?",
            [(used_at_ns, key) for key, used_at_ns in self._used_at_ns.items()],
        )
        self._used_at_ns.clear()

    def _write(self, file: Path, data: bytes) -> None:
        """Write a file atomically: after a power cut it is complete or absent."""
        try:
            with self._partial_file.open("wb") as partial:
                partial.write(data)
                partial.flush()
                os.fsync(partial.fileno())
            file.parent.mkdir(parents=True, exist_ok=True)
            self._partial_file.replace(file)
        except OSError:
            self._partial_file.unlink(missing_ok=True)
            raise
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _file(self, sha256: str) -> Path:
        return self._folder / "blobs" / sha256[:2] / sha256


@contextmanager
def _writing(index: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock; commit at the end, or roll back on an exception."""
    with index:
        index.execute("BEGIN IMMEDIATE")
        yield


def _count_bytes(index: sqlite3.Connection) -> int:
    [size_bytes] = index.execute("SELECT coalesce(sum(size_bytes), 0) FROM results").fetchone()
    return int(size_bytes)


def _remove_unless_used(index: sqlite3.Connection, file: Path) -> None:
    row = index.execute("SELECT 1 FROM images WHERE sha256 = ?", (file.name,)).fetchone()
    if row is None:
        file.unlink(missing_ok=True)
