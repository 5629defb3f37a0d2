"""What changes a model's images changes its identity, and nothing else does."""

import os
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch

from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.models.identity import identify
from safelight_service.engine.models.loading import load_model
from safelight_service.settings import (
    AccelerationSettings,
    DefaultSettings,
    LimitSettings,
    ModelSettings,
)
from support.engine.tiny_models import TinyModels

SETTINGS = ModelSettings(name="model", source="owner/name", device="cpu", allow_unpinned=True)
COMMIT = "0123456789" * 4
WEIGHTS = Path("unet", "weights.safetensors")


def identity_of(
    folder: Path,
    settings: ModelSettings = SETTINGS,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
) -> str:
    return identify(settings, folder, "AnyPipeline", dtype, torch.device(device))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "model")


def make_folder(folder: Path) -> Path:
    (folder / WEIGHTS).parent.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(b"weights")
    os.utime(folder / WEIGHTS, (1, 1))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.write_bytes(b"weights!"),
        lambda weights: weights.write_bytes(b"WEIGHTS"),
        lambda weights: weights.rename(weights.with_name("other.safetensors")),
        lambda weights: weights.with_name("config.json").touch(),
    ],
    ids=["size", "content", "name", "one more"],
)
def test_a_file_that_changes_changes_the_identity(change: object, folder: Path) -> None:
    before = identity_of(folder)
    assert identity_of(folder) == before
    assert callable(change)
    change(folder / WEIGHTS)
    assert identity_of(folder) != before


def test_files_behind_a_link_count(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "unet").symlink_to(folder / "unet")
    before = identity_of(linked)
    (folder / WEIGHTS).write_bytes(b"WEIGHTS")
    assert identity_of(linked) != before


def test_copies_are_equal_whatever_their_times(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(tmp_path / "copy" / WEIGHTS, (1, 2))
    assert identity_of(tmp_path / "copy") == identity_of(folder)


def test_a_commit_is_part_of_the_identity(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "snapshots" / COMMIT)
    before = identity_of(folder)
    assert COMMIT in before
    (folder / WEIGHTS).write_bytes(b"WEIGHTS")  # a folder of that name may hold anything
    assert identity_of(folder) != before


def test_weights_replaced_in_place_are_another_model(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    """Size and modification time stay the same, as in reproducible builds of images."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_models.folder("sd15"), folder)
    settings = ModelSettings(name="model", source=str(folder), device="cpu")
    digests = FileDigests(tmp_path / "digests.json")
    before = load_model(settings, digests=digests).identity
    assert load_model(settings, digests=digests).identity == before
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    stat = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert weights.stat().st_size == stat.st_size
    assert load_model(settings, digests=digests).identity != before


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"source": "owner/other"},
        {"revision": "v2"},
        {"variant": "fp16"},
        {"acceleration": AccelerationSettings(vae_tiling=True)},
    ],
)
def test_a_setting_that_changes_images_changes_the_identity(
    change: dict[str, object], folder: Path
) -> None:
    assert identity_of(folder, SETTINGS.model_copy(update=change)) != identity_of(folder)


def test_precision_and_device_change_the_identity(folder: Path) -> None:
    identities = {
        identity_of(folder),
        identity_of(folder, dtype=torch.bfloat16),
        identity_of(folder, device="cuda"),
    }
    assert len(identities) == 3
    assert identity_of(folder, device="cuda:1") == identity_of(folder, device="cuda:0")


def test_what_requests_may_ask_does_not_change_the_identity(folder: Path) -> None:
    change = {"limits": LimitSettings(max_step_count=9), "defaults": DefaultSettings(width=64)}
    assert identity_of(folder, SETTINGS.model_copy(update=change)) == identity_of(folder)


def test_a_model_of_the_hub_tells_its_commit(
    tiny_models: TinyModels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "models--owner--name"
    shutil.copytree(tiny_models.folder("sd15"), cached / "snapshots" / COMMIT)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    loaded = load_model(SETTINGS)
    assert loaded.revision == COMMIT
    assert COMMIT in loaded.identity
