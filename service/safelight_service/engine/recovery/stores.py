"""LogStore: keeps the logs of running images in a folder, or in Redis.

Used by threads that may wait. Errors are those of the folder or of the server.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

_TIMEOUT_S = 1.0
"""Longest command; computing again may take longer."""
_PREFIX = "safelight:forwards:v1:"
_SUFFIX = ".log"


class LogStore(Protocol):
    """Logs by their names; each disappears some time after its last change."""

    def load(self, names: Sequence[str]) -> list[bytes]:
        """Return the logs, empty where there is none."""

    def begin(self, name: str, data: bytes) -> None:
        """Write a new log; it replaces an earlier one."""

    def append(self, name: str, data: bytes) -> None:
        """Add to a log."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove logs, if they exist."""


class FolderStore:
    """A file for each log, readable by its owner only."""

    def __init__(self, folder: Path, ttl_s: float, max_bytes: int) -> None:
        """Keep files for `ttl_s` seconds, and at most `max_bytes` of them."""
        self._folder = folder
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes

    def load(self, names: Sequence[str]) -> list[bytes]:
        """Read files."""
        return [self._read(name) for name in names]

    def begin(self, name: str, data: bytes) -> None:
        """Replace a file, after old ones have been removed."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep()
        draft = self._folder / f"{name}.{os.getpid()}.draft"
        with open(draft, "wb", opener=_open_private) as file:
            file.write(data)
        draft.replace(self._path(name))

    def append(self, name: str, data: bytes) -> None:
        """Append to a file that exists."""
        file = os.open(self._path(name), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        try:
            os.write(file, data)  # a part of a record, on a full disk, reads as the end
        finally:
            os.close(file)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files."""
        for name in names:
            self._path(name).unlink(missing_ok=True)

    def _read(self, name: str) -> bytes:
        path = self._path(name)
        try:
            if time.time() - path.stat().st_mtime > self._ttl_s:
                return b""
            return path.read_bytes()
        except FileNotFoundError:
            return b""

    def _sweep(self) -> None:
        """Remove expired files, and the oldest while there are too many bytes."""
        files = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                found = path.stat()
                files.append((found.st_mtime, found.st_size, path))
        kept_bytes = 0
        for changed_at, size, path in sorted(files, reverse=True):
            kept_bytes += size
            if time.time() - changed_at > self._ttl_s or kept_bytes > self._max_bytes:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}{_SUFFIX}"


class RedisStore:
    """A value for each log; the server removes it `ttl_s` seconds after its last change."""

    def __init__(self, url: str, ttl_s: int) -> None:
        self._client = Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
        )
        self._ttl_s = ttl_s

    def load(self, names: Sequence[str]) -> list[bytes]:
        """Get values."""
        values = self._client.mget([_PREFIX + name for name in names])
        return [value if isinstance(value, bytes) else b"" for value in values]

    def begin(self, name: str, data: bytes) -> None:
        """Set a value."""
        self._client.set(_PREFIX + name, data, ex=self._ttl_s)

    def append(self, name: str, data: bytes) -> None:
        """Append to a value."""
        with self._client.pipeline(transaction=False) as commands:
            commands.append(_PREFIX + name, data)
            commands.expire(_PREFIX + name, self._ttl_s)
            commands.execute()

    def remove(self, names: Sequence[str]) -> None:
        """Delete values."""
        self._client.delete(*(_PREFIX + name for name in names))


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
