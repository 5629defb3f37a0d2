"""Disk tier: results in a folder, which outlive the process and can be shared on a host."""

import asyncio
import errno
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from safelight_service.cache.folder import MissingResultError, ResultFolder
from safelight_service.cache.results import MalformedResultError, Result
from safelight_service.core.shares import Shares
from safelight_service.core.tenant import NO_TENANT, Tenant

LOCK_WAIT_S = 1.0
"""Longest wait of a write for the lock of another process."""

READ_WAIT_S = 0.1
"""Longest wait of a read for a lock or a repair."""

_MAX_WAITING_BYTES = 64 << 20
"""Bytes of results that may wait to be written; an owner below its share may exceed them."""

_T = TypeVar("_T")


class DiskTier:
    """Keeps results of up to `max_bytes` in total, with a share for each owner.

    A full disk evicts, too. Reads and writes have a thread and a connection each, so no read
    waits for a write; it finds results that wait to be written. A read writes nothing: uses are
    noted with the next write. Use it on one event loop.
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
        self._results = ResultFolder(
            folder, max_bytes, lock_wait_s=lock_wait_s, read_wait_s=read_wait_s
        )
        self._max_bytes = max_bytes
        self._read_wait_s = read_wait_s
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="safelight-disk-cache-read")
        self._writers = ThreadPoolExecutor(1, thread_name_prefix="safelight-disk-cache-write")
        self._has_begun = False
        self._waiting: dict[str, Result] = {}
        """Results that wait to be written."""
        self._waiting_bytes = Shares(_MAX_WAITING_BYTES)
        self._uses: dict[str, int] = {}
        """Results used since the last write, the latest last, with a number for each use."""
        self._use_count = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all images; an image counts once for each result that has it."""
        return self._results.size_bytes

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: a file has changed; the result is removed.
            OSError, sqlite3.Error: any filesystem or SQLite failure.
        """
        if key in self._waiting:
            return self._waiting[key]
        if not self._has_begun:
            self._has_begun = True
            await self._repair(self._results.open)
        try:
            result = await _run(self._readers, lambda: self._results.read(key))
        except MalformedResultError:
            await self._repair(lambda: self._results.discard(key))
            raise
        except MissingResultError:
            await self._repair(lambda: self._results.discard(key))
            return None
        except sqlite3.OperationalError:  # locked or full, which passes
            raise
        except sqlite3.DatabaseError:
            await self._repair(self._results.reopen)
            return None
        if result is not None:
            self._uses.pop(key, None)
            self._use_count += 1
            self._uses[key] = self._use_count
        return result

    async def put(self, key: str, result: Result, owner: Tenant = NO_TENANT) -> None:
        """Keep a result, unless it is larger than `max_bytes` or than its owner's share.

        Raises:
            OSError, sqlite3.Error: any filesystem or SQLite failure, or too many writes at once.
        """
        size_bytes = result.size_bytes
        if size_bytes > self._max_bytes:
            return
        self._reserve(owner, size_bytes)
        self._waiting[key] = result
        uses = dict(self._uses)
        try:
            await _run(self._writers, lambda: self._results.write(key, result, owner, uses))
        finally:
            self._waiting_bytes.take(owner.name, size_bytes)
            if self._waiting.get(key) is result:
                del self._waiting[key]
        self._uses = {key: use for key, use in self._uses.items() if uses.get(key) != use}

    async def close(self) -> None:
        """Note the last uses, and end the threads."""
        try:
            await _run(self._readers, self._results.close_reader)
            await _run(self._writers, lambda: self._results.close_writer(self._uses))
        finally:
            self._readers.shutdown()
            self._writers.shutdown()

    def _reserve(self, owner: Tenant, size_bytes: int) -> None:
        """Count bytes that wait to be written, unless the owner has more than its share there.

        Raises:
            BlockingIOError: it has.
        """
        waiting = self._waiting_bytes
        is_empty = waiting.total == 0
        waiting.add(owner, size_bytes)
        if waiting.is_exceeded and not is_empty and waiting.find_excessive() == owner.name:
            waiting.take(owner.name, size_bytes)
            raise BlockingIOError(errno.EAGAIN, "too many results wait to be written")

    async def _repair(self, work: Callable[[], object]) -> None:
        """Let the writing thread do this, and wait for it no longer than a read may."""
        repair = asyncio.get_running_loop().run_in_executor(self._writers, work)
        repair.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([repair], timeout=self._read_wait_s)


async def _run(thread: ThreadPoolExecutor, work: Callable[[], _T]) -> _T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)
