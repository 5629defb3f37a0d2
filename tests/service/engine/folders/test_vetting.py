"""Models are untrusted input: what might run code is refused, and none of it runs."""

import asyncio
import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from safelight_service.core.errors import ModelFailedError
from safelight_service.core.request import GenerationRequest
from safelight_service.engine import Engine
from safelight_service.engine.folders.errors import UnsafeModelError
from safelight_service.engine.folders.fetching import fetch
from safelight_service.engine.folders.model_index import read_index
from safelight_service.engine.models.loading import load_model
from safelight_service.settings import ModelSettings, Settings
from support.engine.job_runs import collect
from support.engine.tiny_models import MERGING
from support.running_service import service_environment
from support.warm_process import run_warm
from tests.service.engine.folders.loopback_hub import COMMIT, REPOSITORY, LoopbackHub
from tests.service.engine.folders.snapshot import Snapshot


def add_code(snapshot: Snapshot) -> None:
    snapshot.write_code("unet/extras.py")


def add_code_out_of_sight(snapshot: Snapshot) -> None:
    (snapshot.folder / "unet" / "docs").mkdir(parents=True)
    snapshot.write_code("unet/docs/Extras.PY")


def name_a_pipeline_of_its_own(snapshot: Snapshot) -> None:
    snapshot.write_code("pipeline.py")
    snapshot.edit_json("model_index.json", set_class(["pipeline", "Custom"]))


def name_a_community_pipeline(snapshot: Snapshot) -> None:
    snapshot.edit_json("model_index.json", set_class(["lpw_stable_diffusion", "Custom"]))


def name_a_pipeline_that_fetches_others(snapshot: Snapshot) -> None:
    snapshot.edit_json("model_index.json", set_class("KandinskyV22CombinedPipeline"))


def name_something_else(snapshot: Snapshot) -> None:
    snapshot.edit_json("model_index.json", set_class("UNet2DConditionModel"))


def name_the_base_class(snapshot: Snapshot) -> None:
    snapshot.edit_json("model_index.json", set_class("DiffusionPipeline"))


def set_class(class_name: object) -> Callable[[dict[str, Any]], None]:
    return lambda index: index.update({"_class_name": class_name})


def name_a_component_of_its_own(snapshot: Snapshot) -> None:
    snapshot.rename_component("unet", "custom", "Custom")


def name_a_component_by_a_path(snapshot: Snapshot) -> None:
    snapshot.rename_component("unet", "../unet/custom", "Custom")


def name_a_pipeline_as_a_component(snapshot: Snapshot) -> None:
    snapshot.rename_component("unet", "diffusers", "DiffusionPipeline")


def name_a_module_of_diffusers(snapshot: Snapshot) -> None:
    snapshot.rename_component("unet", "auto_pipeline", "AutoPipelineForText2Image")


def pickle_a_component(snapshot: Snapshot) -> None:
    (snapshot.folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    snapshot.write_pickle("unet/diffusion_pytorch_model.bin")


def pickle_shards(snapshot: Snapshot) -> None:
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "weights.bin"}}
    snapshot.write_pickle("unet/weights.bin")
    name = "unet/diffusion_pytorch_model.safetensors.index.json"
    (snapshot.folder / name).write_text(json.dumps(index))


def pickle_an_adapter(snapshot: Snapshot) -> None:
    snapshot.write_pickle("text_encoder/adapter_model.bin")
    snapshot.edit_json(
        "text_encoder/config.json",
        lambda config: config.update(transformers_weights="adapter_model.bin"),
    )


def link_a_folder_with_code(snapshot: Snapshot) -> None:
    elsewhere = snapshot.folder.parent / "elsewhere"
    (snapshot.folder / "unet").rename(elsewhere)
    (snapshot.folder / "unet").symlink_to(elsewhere)
    snapshot.write_code("unet/custom.py")


@pytest.mark.parametrize(
    ("spoil", "file"),
    [
        (add_code, "unet/extras.py"),
        (add_code_out_of_sight, "unet/docs/Extras.PY"),
        (name_a_pipeline_of_its_own, "model_index.json"),
        (name_a_community_pipeline, "model_index.json"),
        (name_a_pipeline_that_fetches_others, "model_index.json"),
        (name_something_else, "model_index.json"),
        (name_the_base_class, "model_index.json"),
        (name_a_component_of_its_own, "model_index.json"),
        (name_a_component_by_a_path, "model_index.json"),
        (name_a_pipeline_as_a_component, "model_index.json"),
        (name_a_module_of_diffusers, "model_index.json"),
        (pickle_a_component, "unet/diffusion_pytorch_model.bin"),
        (pickle_shards, "unet/diffusion_pytorch_model.safetensors.index.json"),
        (pickle_an_adapter, "text_encoder/adapter_model.bin"),
        (link_a_folder_with_code, "unet/custom.py"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_might_run_code_is_refused_by_name_and_not_run(
    snapshot: Snapshot, spoil: Callable[[Snapshot], None], file: str
) -> None:
    """Fault 9: a snapshot with Python files, pickles, or an index that asks for either."""
    spoil(snapshot)
    with pytest.raises(UnsafeModelError, match=f"^{file}: "):
        snapshot.load()
    assert not snapshot.canary.exists()


def test_clutter_is_let_be_and_never_read(snapshot: Snapshot) -> None:
    """Fault 9: pickles beside safetensors, and both where no component is, as on the Hub."""
    for name in ("handler.py", "pipeline.py", "None.py"):  # the last is one that diffusers runs
        snapshot.write_code(name)
    snapshot.write_pickle("unet/diffusion_pytorch_model.bin")
    snapshot.write_pickle("text_encoder/pytorch_model.bin")
    snapshot.write_pickle("v1-5-pruned.ckpt")
    (snapshot.folder / "onnx").mkdir()
    snapshot.write_pickle("onnx/weights.pb")
    snapshot.load()
    assert not snapshot.canary.exists()


def test_components_from_packages_of_diffusers_are_taken(snapshot: Snapshot) -> None:
    snapshot.rename_component("safety_checker", "stable_diffusion", "StableDiffusionSafetyChecker")
    index = read_index(snapshot.folder, {})
    assert index.components["safety_checker"][0] == "stable_diffusion"


def test_the_operator_is_told_the_file_and_the_caller_is_not(
    snapshot: Snapshot, capfd: pytest.CaptureFixture[str]
) -> None:
    """Fault 9: the call fails with ModelFailedError, which is FAILED_PRECONDITION."""
    add_code(snapshot)
    settings = ModelSettings(name="x", source=str(snapshot.folder), preload=False)

    async def act() -> None:
        engine = Engine(Settings(models=(settings,), batching=MERGING))
        await engine.start()
        try:
            await collect(engine, GenerationRequest("x", waits_for_model=True))
        finally:
            await engine.close()

    with pytest.raises(ModelFailedError) as raised:
        asyncio.run(act())
    assert "extras.py" not in str(raised.value)
    assert "unet/extras.py: code that comes with a model is never run" in "".join(
        capfd.readouterr()
    )


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_read_is_downloaded(snapshot: Snapshot, hub: LoopbackHub) -> None:
    add_code(snapshot)
    snapshot.write_pickle("unet/diffusion_pytorch_model.bin")
    (snapshot.folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").touch()
    files = files_of(fetch(REPOSITORY, COMMIT, None))
    assert "unet/diffusion_pytorch_model.safetensors" in files
    assert "tokenizer/tokenizer.json" in files
    assert not any(file.endswith((".py", ".bin", ".fp16.safetensors")) for file in files)


def test_weights_of_the_variant_are_downloaded_where_there_are_any(
    snapshot: Snapshot, hub: LoopbackHub
) -> None:
    unet = snapshot.folder / "unet"
    shutil.copy(
        unet / "diffusion_pytorch_model.safetensors",
        unet / "diffusion_pytorch_model.fp16.safetensors",
    )
    files = files_of(fetch(REPOSITORY, COMMIT, "fp16"))
    weights = {file for file in files if file.endswith(".safetensors")}
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in weights
    assert "unet/diffusion_pytorch_model.safetensors" not in weights
    assert "vae/diffusion_pytorch_model.safetensors" in weights


def test_a_commit_that_is_there_is_not_asked_for_again(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ModelSettings(name="x", source=REPOSITORY, revision=COMMIT, device="cpu")
    assert load_model(settings, MERGING).revision == COMMIT
    hub.asked.clear()
    fetch(REPOSITORY, COMMIT, None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fetch(REPOSITORY, COMMIT, None)
    assert hub.asked == []
    with pytest.raises(OSError, match="Cannot find an appropriate cached snapshot"):
        fetch(REPOSITORY, "f" * 40, None)


def test_an_index_that_asks_for_code_is_refused_before_anything_else_is_downloaded(
    snapshot: Snapshot, hub: LoopbackHub
) -> None:
    """Fault 9: diffusers itself would fetch a community pipeline and run it."""
    name_a_community_pipeline(snapshot)
    with pytest.raises(UnsafeModelError, match=r"^model_index\.json: _class_name"):
        fetch(REPOSITORY, COMMIT, None)
    assert {path.rpartition("/")[2] for path in hub.asked} == {COMMIT, "model_index.json"}


def test_the_name_of_a_model_opens_no_file_and_no_socket() -> None:
    """Fault 8: a path or a URL as the model of a call is no more than an unknown name."""
    result = run_warm(["tests.service.engine.folders.unknown_names"], service_environment({}))
    assert result.stdout.splitlines() == ["NOT_FOUND []"] * 10, result.stderr


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed")
def test_model_that_needs_a_library_which_is_not_installed_is_refused_by_the_librarys_name(
    snapshot: Snapshot,
) -> None:
    snapshot.rename_component("tokenizer", "transformers", "PixtralProcessor")
    with pytest.raises(
        ImportError, match=r"^tokenizer is a PixtralProcessor, which needs torchvision$"
    ):
        snapshot.load()
