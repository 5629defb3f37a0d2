"""Reloading: values from files, reread on access after a change, without a thread."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from safelight_service.settings import ConfigurationError

_log = structlog.get_logger()
_Value = TypeVar("_Value")


class Reloaded(Generic[_Value]):
    """The last good value read from files.

    `read` raises ConfigurationError for bad files. The constructor passes it on; a later
    one is logged once, and the previous value stays in force.
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
        self._checked_at = clock()
        self._signature = _sign(files)
        self._value = read()

    @property
    def present(self) -> _Value:
        """The value, without a look at the files; safe to read from any thread."""
        return self._value

    def get(self) -> _Value:
        """Return the value; check the files if the last check is `interval_s` seconds ago."""
        now = self._clock()
        if now - self._checked_at >= self._interval_s:
            self._checked_at = now
            signature = _sign(self._files)
            if signature != self._signature:
                # Set before reading, so that a change during the read causes another.
                self._signature = signature
                try:
                    self._value = self._read()
                except ConfigurationError as error:
                    _log.warning("reload_failed", reason=str(error))
        return self._value


def _sign(files: Sequence[Path]) -> list[tuple[int, ...] | None]:
    """Return values that change when a file is written, replaced or made readable."""
    return [_sign_file(file) for file in files]


def _sign_file(file: Path) -> tuple[int, ...] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
