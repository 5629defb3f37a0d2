"""Small disk to fill to the last byte: a tmpfs, or else a limit on file sizes."""

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Mount a tmpfs of 4 MiB on a folder.

    Raises:
        PermissionError: this user may not mount.
    """
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        raise PermissionError(errno.EPERM, "mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    """Remount a folder with another option."""
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


@contextmanager
def filled(folder: Path) -> Iterator[None]:
    """Fill the disk mounted on a folder."""
    filler = folder / "filler"
    free_bytes = shutil.disk_usage(folder).free
    filler.write_bytes(bytes(free_bytes))
    assert shutil.disk_usage(folder).free == 0
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def files_limited(max_bytes: int) -> Iterator[None]:
    """Make all writes of this process to files fail beyond so many bytes of a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
