"""FileDigests: SHA-256 of model files, remembered on disk so that only changed files are read.

A file counts as unchanged while its inode, size, modification time and change time stay the same.
Programs can set the modification time, but not the change time.
"""

import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

_log = structlog.get_logger()

_THREADS = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MOST_REMEMBERED = 10_000

_SETTLED_NS = 2_000_000_000
"""Age of a change after which another one is sure to have another change time."""

UNREADABLE = "unreadable"
"""Stands for a file that this process cannot read, and so does not load either."""


class FileDigests:
    """Digests by file, in one JSON file that processes share; an unreadable one is replaced.

    Processes that write at the same time may lose each other's digests, and read the files again.
    Safe to use from several threads.
    """

    def __init__(
        self, path: Path | None = None, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        """Remember digests in the file `path`; None: in this object."""
        self._path = path
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}

    def find(self, files: Sequence[Path]) -> list[str]:
        """Return a digest of the content of each file, in their order.

        Files in the blobs of the Hub's cache are named by a digest and are not read.
        """
        with self._lock:
            self._known = {**self._known, **self._load()}
            before = len(self._known)
            with ThreadPoolExecutor(_THREADS, thread_name_prefix="safelight-digest") as threads:
                digests = list(threads.map(self._find, files))
            if len(self._known) > before:
                self._save()
        return digests

    def _find(self, file: Path) -> str:
        try:
            target = file.resolve()
            if target.parent.name == "blobs" and _BLOB.fullmatch(target.name):
                return target.name
            stamp = _stamp(target)
            known = self._known.get(stamp)
            if known is not None:
                return known
            began_at_ns = self._clock_ns()
            with target.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            is_settled = target.stat().st_ctime_ns < began_at_ns - _SETTLED_NS
            if is_settled and _stamp(target) == stamp:
                self._known[stamp] = digest
        except OSError:
            return UNREADABLE
        return digest

    def _load(self) -> dict[str, str]:
        if self._path is None:
            return {}
        try:
            known = json.loads(self._path.read_text("utf-8"))
            if not all(_DIGEST.fullmatch(digest) for digest in known.values()):
                raise ValueError
        except FileNotFoundError:
            return {}
        except (OSError, RecursionError, ValueError, TypeError, AttributeError):
            _log.warning("digests_unreadable", path=str(self._path))
            return {}
        return dict(known)

    def _save(self) -> None:
        if self._path is None:
            return
        latest = dict(list({**self._load(), **self._known}.items())[-_MOST_REMEMBERED:])
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes must not write the same file.
            descriptor, aside = tempfile.mkstemp(dir=self._path.parent, prefix=self._path.name)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as partial:
                    json.dump(latest, partial, indent=1)
                Path(aside).replace(self._path)
            finally:
                Path(aside).unlink(missing_ok=True)
        except OSError as error:
            _log.warning("digests_unwritable", path=str(self._path), error=error.strerror)


def _stamp(file: Path) -> str:
    stat = file.stat()
    facts = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    return ":".join(map(str, facts))
