"""IndexConnection: a thread's connection to the SQLite file of an index."""

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from safelight_service.cache.blobs import is_regular, remove
from safelight_service.cache.index import make_tables

_log = structlog.get_logger()

_PRAGMAS = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA foreign_keys = ON;
"""

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


def is_disk_full(error: Exception) -> bool:
    """Whether an error of the filesystem or of SQLite means that the disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _code_of(error) == sqlite3.SQLITE_FULL


def _connect(file: Path, wait_s: float) -> sqlite3.Connection:
    _make_private(file)
    index = sqlite3.connect(file, timeout=wait_s, isolation_level=None)
    try:
        index.executescript(_PRAGMAS)
        make_tables(index)
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
