"""Blobs: images as files, named by their SHA-256 and readable for their owner only."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from safelight_service.cache.results import MalformedResultError

_NAME = re.compile("[0-9a-f]{64}")
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ODD_FILE = (errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.ENOTDIR, errno.EACCES, errno.EPERM)
"""Errors from opening a link, a socket, a device or a file of another user."""


class BlobFolder:
    """Reads and writes the blobs of a cache folder. Only one process may write at a time.

    A blob is complete before it has its name. Nothing else in its place is ever read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "blobs"
        self._partial = folder / "partial"

    def prepare(self) -> None:
        """Make the folder private, and remove a file that was left half-written."""
        _make_own_folder(self._folder)
        with suppress(PermissionError):  # of another user, whose files are private likewise
            self._folder.chmod(0o700)
        remove(self._partial)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of all blobs."""
        for path in self._folder.glob(f"??/{'?' * 64}"):
            yield path.name

    def read(self, sha256: str, size_bytes: int) -> bytes:
        """Return a blob of that size; never wait for a writer, and never read another file.

        Raises:
            FileNotFoundError: there is none.
            MalformedResultError: there is something else in its place.
            OSError: any failure of the filesystem.
        """
        try:
            descriptor = os.open(self._path(sha256), _READ_FLAGS)
        except OSError as error:
            if error.errno in _ODD_FILE:
                raise MalformedResultError("something else is in place of an image") from error
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
                raise MalformedResultError("a file is not the one written for an image")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read(size_bytes)
        finally:
            os.close(descriptor)

    def write(self, sha256: str, data: bytes) -> None:
        """Write a blob atomically: after a power cut it is complete or absent.

        Raises:
            OSError: any failure of the filesystem.
        """
        path = self._path(sha256)
        _make_own_folder(path.parent)
        remove(self._partial)
        try:
            _write_private_file(self._partial, data)
            if path.is_dir():
                remove(path)
            self._partial.replace(path)
        except OSError:
            remove(self._partial)
            raise
        _sync_folder(path.parent)

    def remove(self, sha256: str) -> int:
        """Remove whatever is in place of a blob; return the bytes that this frees on the disk."""
        return remove(self._path(sha256)) if _NAME.fullmatch(sha256) else 0

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def make_private_folder(folder: Path) -> None:
    """Make a folder for its owner only, whatever the umask; keep an existing one as it is.

    Raises:
        OSError: there is something else in its place, or any failure of the filesystem.
    """
    try:
        folder.mkdir(0o700)
    except FileExistsError:  # perhaps by another process, just now
        if not folder.is_dir():
            raise
    else:
        folder.chmod(0o700)


def remove(path: Path) -> int:
    """Remove anything; return the bytes of a file that this frees on the disk, 0 for others."""
    try:
        found = path.lstat()
        if stat.S_ISDIR(found.st_mode):
            shutil.rmtree(path)
            return 0
        path.unlink()
    except (FileNotFoundError, NotADirectoryError):
        return 0
    return found.st_blocks * 512 if found.st_nlink == 1 else 0


def is_regular(path: Path) -> bool | None:
    """Whether a path is an ordinary file; None if there is nothing."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return None


def _make_own_folder(folder: Path) -> None:
    if not folder.is_dir():
        remove(folder)
        make_private_folder(folder)


def _write_private_file(path: Path, data: bytes) -> None:
    descriptor = os.open(path, _WRITE_FLAGS, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # a umask can take the owner's rights, too
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
