"""Disk tiers on folders, and the locks that other processes hold on them."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

from safelight_service.cache.disk import LOCK_WAIT_S, DiskTier

ROOM = 1 << 20
LONG_S = 60.0
"""More than anything takes on a busy machine."""


@asynccontextmanager
async def open_tier(
    folder: Path,
    room: int = ROOM,
    *,
    lock_wait_s: float = LOCK_WAIT_S,
    read_wait_s: float = LONG_S,
) -> AsyncIterator[DiskTier]:
    """Open a tier for `room` bytes, and close it at the end."""
    tier = DiskTier(folder, room, lock_wait_s=lock_wait_s, read_wait_s=read_wait_s)
    try:
        yield tier
    finally:
        await tier.close()


def blobs(folder: Path) -> list[Path]:
    """Return the files of all images."""
    return sorted(folder.glob("blobs/*/*"))


@contextmanager
def locked(folder: Path, mode: str = "NORMAL") -> Iterator[None]:
    """Hold the write lock of a folder's index; EXCLUSIVE keeps readers out, too."""
    with closing(sqlite3.connect(folder / "index.sqlite", isolation_level=None)) as other:
        other.execute(f"PRAGMA locking_mode = {mode}")
        other.execute("BEGIN IMMEDIATE")
        yield
