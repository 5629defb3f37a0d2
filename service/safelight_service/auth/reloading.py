"""Reloading: what files say, read again when they change; no thread watches them."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from safelight_service.settings import ConfigurationError

_log = structlog.get_logger()
_Value = TypeVar("_Value")


class Reloaded(Generic[_Value]):
    """The last good version of what files say.

    `read` raises ConfigurationError for a bad version: the first one reaches the
    constructor's caller, a later one is logged once and leaves the one before in force.
    """

    def __init__(
        self,
        read: Callable[[], _Value],
        files: Sequence[Path],
        *,
        interval_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._files = files
        self._interval_s = interval_s
        self._clock = clock
        self._looked_at = clock()
        self._signature = _sign(files)
        self._value = read()

    def get(self) -> _Value:
        """Return it, after a look at the files if the last one is `interval_s` seconds ago."""
        now = self._clock()
        if now - self._looked_at >= self._interval_s:
            self._looked_at = now
            signature = _sign(self._files)
            if signature != self._signature:
                # Remembered before it is read, so that what changes meanwhile is read again.
                self._signature = signature
                try:
                    self._value = self._read()
                except ConfigurationError as error:
                    _log.warning("reload_failed", reason=str(error))
        return self._value


def _sign(files: Sequence[Path]) -> list[tuple[int, ...] | None]:
    """Return what differs once a file has been written, replaced or made readable."""
    return [_sign_file(file) for file in files]


def _sign_file(file: Path) -> tuple[int, ...] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
