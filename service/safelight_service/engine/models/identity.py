"""Identity: everything about a model that affects the bytes of its images."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from safelight_service.engine.models.digests import FileDigests
from safelight_service.settings import ModelSettings

_HUB_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})$")


def find_commit(folder: Path) -> str:
    """Return the commit of a folder in the Hub's cache; empty for any other folder."""
    snapshot = _HUB_SNAPSHOT.search(folder.as_posix())
    return snapshot[1] if snapshot else ""


def identify(
    settings: ModelSettings,
    folder: Path,
    pipeline_class: str,
    dtype: torch.dtype,
    device: torch.device,
    files: str | None = None,
) -> str:
    """Return a JSON text that is equal for models whose images have the same bytes.

    `files` is the result of `digest_files` for the folder; None computes it. Files count by their
    names and contents, so copies of a folder are equal.
    """
    facts = {
        "name": settings.name,  # images contain it
        "source": settings.source,
        "revision": find_commit(folder) or settings.revision,
        "files": files or digest_files(folder, FileDigests()),
        "variant": settings.variant,
        "pipeline_class": pipeline_class,
        "dtype": str(dtype),
        "device": device.type,
        "acceleration": settings.acceleration.model_dump(),
    }
    return json.dumps(facts, sort_keys=True)


def digest_files(folder: Path, digests: FileDigests) -> str:
    """Return one SHA-256 of the names and contents of all files below a folder."""
    files = sorted(_list_files(folder))
    found = zip(files, digests.find([folder / name for name in files]), strict=True)
    return hashlib.sha256(json.dumps(list(found)).encode()).hexdigest()


def _list_files(folder: Path) -> Iterator[str]:
    """Return the names of all files below a folder; follows links, but never into a circle."""
    for path, folders, files in os.walk(folder, followlinks=True):
        here = Path(path)
        above = os.path.realpath(path) + os.sep
        folders[:] = [
            name
            for name in folders
            if name[0] != "." and not above.startswith(os.path.realpath(here / name) + os.sep)
        ]
        for name in files:
            if name[0] != "." and (here / name).is_file():
                yield (here / name).relative_to(folder).as_posix()
