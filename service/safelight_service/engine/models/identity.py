"""Identity: everything about a model that affects the bytes of its images."""

import glob
import json
import re
from pathlib import Path

import torch

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
) -> str:
    """Return a JSON text that is equal for models whose images have the same bytes.

    A commit identifies its files; other folders are identified by the names, sizes and
    modification times of their files.
    """
    commit = find_commit(folder)
    facts = {
        "name": settings.name,  # PNGs contain it
        "source": settings.source,
        "revision": commit or settings.revision,
        "files": [] if commit else _list_files(folder),
        "variant": settings.variant,
        "pipeline_class": pipeline_class,
        "dtype": str(dtype),
        "device": device.type,
        "acceleration": settings.acceleration.model_dump(),
    }
    return json.dumps(facts, sort_keys=True)


def _list_files(folder: Path) -> list[tuple[str, int, int]]:
    files = []
    for name in sorted(glob.glob("**", root_dir=folder, recursive=True)):  # follows links
        if (folder / name).is_file():
            stat = (folder / name).stat()
            files.append((name, stat.st_size, stat.st_mtime_ns))
    return files
