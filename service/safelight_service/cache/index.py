"""Index: the SQLite database that lists the results of a folder and the order of their use.

`recency` orders results by use: each use takes the next number, so no clock is involved.
"""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from safelight_service.cache.blobs import is_regular, remove

_log = structlog.get_logger()

_SCHEMA = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS results (
        key TEXT PRIMARY KEY, header BLOB NOT NULL, size_bytes INTEGER NOT NULL,
        recency INTEGER NOT NULL
    );
    CREATE INDEX IF NOT EXISTS results_by_use ON results (recency, size_bytes);
    CREATE TABLE IF NOT EXISTS images (
        key TEXT REFERENCES results ON DELETE CASCADE, position INTEGER, sha256 TEXT NOT NULL,
        PRIMARY KEY (key, position)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS images_by_sha256 ON images (sha256);
"""

_NEXT_RECENCY = "(SELECT coalesce(max(recency), 0) + 1 FROM results)"
_SIDECARS = ("-journal", "-wal", "-shm")


class IndexConnection:
    """Connection of one thread to an index. It opens again when the file has been replaced.

    After a wait for a lock in vain it fails at once for as long, so that waits do not add up.
    """

    def __init__(
        self, file: Path, connect: Callable[[], sqlite3.Connection], wait_s: float
    ) -> None:
        self._file = file
        self._connect = connect
        self._wait_s = wait_s
        self._locked_until = 0.0
        self._index: sqlite3.Connection | None = None
        self._opened: tuple[int, int] | None = None
        """Device and inode of the file that is open."""

    @property
    def is_open(self) -> bool:
        """Whether it is connected."""
        return self._index is not None

    @contextmanager
    def session(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to a block; an exception that may mean damage closes it.

        Raises:
            OSError, sqlite3.Error: the index cannot be opened, or was locked a moment ago.
        """
        if time.monotonic() < self._locked_until:
            raise sqlite3.OperationalError("the index was locked a moment ago")
        try:
            yield self._open()
        except sqlite3.OperationalError as error:  # locked or full, which passes
            if _code_of(error) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                self._locked_until = time.monotonic() + self._wait_s
            raise
        except (sqlite3.DatabaseError, FileNotFoundError):  # damaged, or the folder is gone
            self.close()
            raise

    def close(self) -> None:
        """Disconnect, if connected."""
        if self._index is not None:
            self._index.close()
            self._index = None

    def _open(self) -> sqlite3.Connection:
        if self._opened != _identify(self._file):
            self.close()
        if self._index is None:
            self._index = self._connect()
            self._opened = _identify(self._file)
        return self._index


def connect_reader(file: Path, wait_s: float) -> sqlite3.Connection:
    """Open an existing index for reading; its queries wait for a lock up to `wait_s` seconds.

    Raises:
        OSError, sqlite3.Error: the index cannot be opened.
    """
    if not all(is_regular(each) in (True, None) for each in _files(file)):
        raise sqlite3.DatabaseError("the index is not an ordinary file")
    address = f"{file.absolute().as_uri()}?mode=rw"  # readers of a WAL write to its -shm
    return sqlite3.connect(address, uri=True, timeout=wait_s, isolation_level=None)


def connect_writer(file: Path, wait_s: float) -> sqlite3.Connection:
    """Open or make an index; set a damaged one aside, and begin another.

    Raises:
        OSError, sqlite3.Error: the index cannot be opened, or is locked for `wait_s` seconds.
    """
    for sidecar in _files(file)[1:]:
        if is_regular(sidecar) is False:
            remove(sidecar)
    try:
        if is_regular(file) is False:
            raise sqlite3.DatabaseError("the index is not an ordinary file")
        return _connect(file, wait_s)
    except sqlite3.OperationalError:  # locked, full or read-only
        raise
    except sqlite3.DatabaseError as damage:
        _set_aside(file, damage)
        return _connect(file, wait_s)


@contextmanager
def writing(index: sqlite3.Connection) -> Iterator[None]:
    """Hold the write lock; commit at the end, or roll back on an exception."""
    with index:
        index.execute("BEGIN IMMEDIATE")
        yield


def find_header(index: sqlite3.Connection, key: str) -> bytes | None:
    """Return the header of a result, or None."""
    try:
        row = index.execute("SELECT header FROM results WHERE key = ?", (key,)).fetchone()
    except sqlite3.OperationalError as error:
        if _code_of(error) == sqlite3.SQLITE_ERROR:  # the tables are being made
            return None
        raise
    return None if row is None else bytes(row[0])


def list_images(index: sqlite3.Connection, key: str) -> list[str]:
    """Return the SHA-256s of the images of a result."""
    rows = index.execute("SELECT DISTINCT sha256 FROM images WHERE key = ?", (key,))
    return [sha256 for (sha256,) in rows]


def add(
    index: sqlite3.Connection, key: str, header: bytes, size_bytes: int, images: Iterable[str]
) -> None:
    """Add a result, as the one used last, with the SHA-256s of its images."""
    index.execute(
        f"INSERT OR REPLACE INTO results VALUES (?, ?, ?, {_NEXT_RECENCY})",
        (key, header, size_bytes),
    )
    rows = [(key, position, sha256) for position, sha256 in enumerate(images)]
    index.executemany("INSERT INTO images VALUES (?, ?, ?)", rows)


def forget(index: sqlite3.Connection, key: str) -> list[str]:
    """Remove a result; return the SHA-256s of images that no other result has."""
    images = list_images(index, key)
    index.execute("DELETE FROM results WHERE key = ?", (key,))
    return [sha256 for sha256 in images if not is_used(index, sha256)]


def note_uses(index: sqlite3.Connection, keys: Iterable[str]) -> None:
    """Make these results the ones used last, in this order."""
    index.executemany(
        f"UPDATE results SET recency = {_NEXT_RECENCY} WHERE key = ?", [(key,) for key in keys]
    )


def find_oldest(index: sqlite3.Connection) -> tuple[str, int] | None:
    """Return the key and the bytes of the least recently used result; None if there is none."""
    row: tuple[str, int] | None = index.execute(
        "SELECT key, size_bytes FROM results ORDER BY recency LIMIT 1"
    ).fetchone()
    return row


def count_bytes(index: sqlite3.Connection) -> int:
    """Return the bytes of all results."""
    [size_bytes] = index.execute("SELECT coalesce(sum(size_bytes), 0) FROM results").fetchone()
    return int(size_bytes)


def is_used(index: sqlite3.Connection, sha256: str) -> bool:
    """Whether any result has this image."""
    row = index.execute("SELECT 1 FROM images WHERE sha256 = ?", (sha256,)).fetchone()
    return row is not None


def is_disk_full(error: Exception) -> bool:
    """Whether an error of the filesystem or of SQLite means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _code_of(error) == sqlite3.SQLITE_FULL


def _connect(file: Path, wait_s: float) -> sqlite3.Connection:
    _make_private(file)
    index = sqlite3.connect(file, timeout=wait_s, isolation_level=None)
    try:
        _rename_former_column(index)
        index.executescript(_SCHEMA)
        [verdict] = index.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
    except BaseException:
        index.close()
        raise
    return index


def _make_private(file: Path) -> None:
    """Make the file, if needed, and let only its owner read it; SQLite makes others likewise.

    An existing file is not opened: closing it would release SQLite's locks in this process.
    """
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    for each in _files(file):
        with suppress(FileNotFoundError, PermissionError):
            each.chmod(0o600)


def _rename_former_column(index: sqlite3.Connection) -> None:
    """Continue an index whose results are ordered by the time of their use."""
    columns = {row[1] for row in index.execute("PRAGMA table_info(results)")}
    if "used_at_ns" in columns:
        index.execute("ALTER TABLE results RENAME COLUMN used_at_ns TO recency")


def _set_aside(file: Path, damage: sqlite3.DatabaseError) -> None:
    """Rename the index. A sweep then removes the images, which have no rows any more."""
    aside = file.with_suffix(".damaged")
    file.replace(aside)
    for sidecar in _files(file)[1:]:
        remove(sidecar)
    _log.warning("cache_index_set_aside", path=str(aside), error=str(damage))


def _files(file: Path) -> list[Path]:
    return [file, *(Path(f"{file}{suffix}") for suffix in _SIDECARS)]


def _identify(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _code_of(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0)
