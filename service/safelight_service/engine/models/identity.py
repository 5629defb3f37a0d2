"""Identity: what decides, beside a request, which bytes a model's images have."""

import glob
import json
import re
from pathlib import Path

import torch

from safelight_service.settings import ModelSettings

_HUB_SNAPSHOT = re.compile(r"/snapshots/([0-9a-f]{40})$")


def find_commit(folder: Path) -> str:
    """Return the commit that a folder of the Hub's cache holds; empty for any other folder."""
    snapshot = _HUB_SNAPSHOT.search(folder.as_posix())
    return snapshot[1] if snapshot else ""


def identify(
    settings: ModelSettings,
    folder: Path,
    pipeline_class: str,
    dtype: torch.dtype,
    device: torch.device,
) -> str:
    """Write down all that is known of a model and changes its images, as text.

    A commit stands for its files; those of any other folder are told apart by name, size and
    time of change.
    """
    commit = find_commit(folder)
    facts = {
        "name": settings.name,  # PNGs tell it
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
