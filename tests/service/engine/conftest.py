"""Fixtures of the engine's tests: folders to spoil, and a Hub that serves one."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from support.engine.tiny_models import TinyModels
from tests.service.engine.folders.loopback_hub import LoopbackHub
from tests.service.engine.folders.snapshot import Snapshot


@pytest.fixture
def snapshot(tiny_models: TinyModels, tmp_path: Path) -> Snapshot:
    """A copy of the tiny Stable Diffusion 1.5."""
    shutil.copytree(tiny_models.folder("sd15"), tmp_path / "model")
    return Snapshot(tmp_path / "model", tmp_path / "canary")


@pytest.fixture
def hub(
    snapshot: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LoopbackHub]:
    """A Hub that serves the snapshot, with an empty cache."""
    loopback = LoopbackHub(snapshot.folder)
    template = loopback.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", loopback.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with loopback.running():
        yield loopback
