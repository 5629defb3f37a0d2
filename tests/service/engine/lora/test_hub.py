"""Hub: an adapter comes from a commit of a repository, and nothing else of it."""

import pytest
from huggingface_hub import constants
from pydantic import ValidationError
from safetensors.torch import save_file

from safelight_service.engine.folders.errors import ModelFolderError
from safelight_service.engine.lora.reading import find_file
from safelight_service.settings import AdapterSettings, ModelSettings
from tests.service.engine.folders.loopback_hub import COMMIT, REPOSITORY, LoopbackHub
from tests.service.engine.folders.snapshot import Snapshot

USUAL, STYLE = "pytorch_lora_weights.safetensors", "styles/ink.safetensors"


@pytest.fixture
def adapters(snapshot: Snapshot) -> None:
    """Two files beside the model in the repository."""
    (snapshot.folder / "styles").mkdir()
    for name in (USUAL, STYLE):
        save_file({}, snapshot.folder / name)


def settings(**values: str) -> AdapterSettings:
    return AdapterSettings(name="ink", source=REPOSITORY, revision=COMMIT, **values)


@pytest.mark.usefixtures("adapters")
@pytest.mark.parametrize(("file", "found"), [("", USUAL), (STYLE, STYLE)])
def test_one_file_is_downloaded_once(
    hub: LoopbackHub, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, file: str, found: str
) -> None:
    first = find_file(settings(file=file), snapshot.folder)
    assert first.as_posix().endswith(f"snapshots/{COMMIT}/{found}")
    prefix = f"/{REPOSITORY}/resolve/{COMMIT}/"
    assert {path.removeprefix(prefix) for path in hub.asked if path.startswith(prefix)} == {found}
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_file(settings(file=file), snapshot.folder) == first
    assert hub.asked == []


@pytest.mark.usefixtures("adapters")
def test_a_file_that_is_missing_is_named(
    hub: LoopbackHub, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelFolderError, match=r"^oil\.safetensors is missing in owner/name"):
        find_file(settings(file="oil.safetensors"), snapshot.folder)
    find_file(settings(), snapshot.folder)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="cannot find the requested files"):
        find_file(settings(file=STYLE), snapshot.folder)


def test_a_revision_must_be_a_commit() -> None:
    adapter = AdapterSettings(name="ink", source=REPOSITORY, revision="main")
    with pytest.raises(ValidationError, match=r"adapter 'ink'.* must be pinned"):
        ModelSettings(name="x", source="folder", adapters=[adapter])
    ModelSettings(name="x", source="folder", adapters=[adapter], allow_unpinned=True)
