"""Adapter files: those of diffusers, PEFT and kohya are read; others are refused with a reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from safelight_service.engine.folders.errors import ModelFolderError, UnsafeModelError
from safelight_service.engine.lora.effects import Factors
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.lora.naming import LoraError
from safelight_service.engine.lora.reading import read_lora
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.settings import AdapterSettings
from support.engine.tiny_models import TinyModels
from support.pipelines.loras import make_lora

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
OTHER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_k"


@pytest.fixture
def model(tiny_models: TinyModels) -> LoadedModel:
    return tiny_models["sd15"]


@pytest.fixture
def tensors(model: LoadedModel) -> dict[str, torch.Tensor]:
    return make_lora(model.adapter.pipeline, 1, is_chosen=lambda name: name == LAYER)


def read(folder: Path, model: LoadedModel, **settings: Any) -> Lora:
    adapter = AdapterSettings(name="it", source=str(folder), **settings)
    device = model.adapter.execution_device
    return read_lora(adapter, Path(), model.adapter.pipeline, device, FileDigests())


def save(folder: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    save_file(tensors, folder / "it.safetensors", metadata)


def factors_of(lora: Lora) -> Factors:
    [component] = lora.effects.values()
    [factors] = component.values()
    assert isinstance(factors, Factors)
    return factors


def check(lora: Lora, tensors: dict[str, torch.Tensor], scaling: float = 1.0) -> None:
    """Check that a file gives the factors of the tensors, times a scaling."""
    down, up = tensors.values()
    found = factors_of(lora)
    assert lora.effects["unet"].keys() == {LAYER}
    assert torch.equal(found.down, down)
    assert torch.allclose(found.up, up * scaling)


def test_a_file_of_diffusers_is_read(
    tmp_path: Path, model: LoadedModel, tensors: dict[str, torch.Tensor]
) -> None:
    save(tmp_path, tensors)
    check(read(tmp_path, model), tensors)


def test_options_in_the_file_scale_the_factors(
    tmp_path: Path, model: LoadedModel, tensors: dict[str, torch.Tensor]
) -> None:
    save(tmp_path, tensors, lora_adapter_metadata=json.dumps({"unet.r": 2, "unet.lora_alpha": 8}))
    check(read(tmp_path, model), tensors, 8 / 2)


def test_a_folder_of_peft_is_read_with_its_options(
    tmp_path: Path, model: LoadedModel, tensors: dict[str, torch.Tensor]
) -> None:
    named = {name.replace("unet.", "base_model.model."): each for name, each in tensors.items()}
    save(tmp_path, named)
    options = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"to_q": 6}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    check(read(tmp_path, model), tensors, 6 / 2)


def test_a_file_of_kohya_is_read_with_its_alphas(
    tmp_path: Path, model: LoadedModel, tensors: dict[str, torch.Tensor]
) -> None:
    down, up = tensors.values()
    layer = f"lora_unet_{LAYER.replace('.', '_')}"
    save(
        tmp_path,
        {
            f"{layer}.lora_down.weight": down,
            f"{layer}.lora_up.weight": up,
            f"{layer}.alpha": torch.tensor(1.0),
        },
    )
    check(read(tmp_path, model), tensors, 1 / 2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({f"unet.{LAYER}.lora_magnitude_vector": torch.ones(8)}, "the factors have sizes"),
        ({f"lora_unet_{LAYER}.dora_scale": torch.ones(8, 1)}, "belongs to a DoRA of another form"),
        ({"lora_unet_x.hada_w1_a": torch.ones(2, 2)}, "belongs to a LoHa"),
        ({f"unet.{LAYER}.lokr_w1": torch.ones(2, 2)}, "is both a LoRA and a LoKr"),
        ({f"unet.{OTHER}.lokr_w1": torch.ones(2, 2)}, "lacks its other factor"),
        (
            {f"unet.{OTHER}.lokr_w{number}": torch.ones(2, 2) for number in (1, 2)},
            "the factors have sizes",
        ),
        ({f"unet.{LAYER}.lora_B.bias": torch.ones(8)}, "is no tensor of a LoRA's factors"),
        ({"unet.nowhere.lora_A.weight": torch.ones(2, 8)}, "the model has no such layer"),
        ({f"unet.{LAYER}.lora_A.weight": torch.ones(2, 9)}, "the factors have sizes"),
        (
            {"vae.x.lora_A.weight": torch.ones(2, 8)},
            "is no tensor of a LoRA for text_encoder, unet",
        ),
        (
            {"unet.mid_block.resnets.0.conv1.lora_A.weight": torch.ones(2, 8, 3, 3)},
            "lacks its other factor",
        ),
        ({f"unet.{LAYER}.lora_A.weight": torch.full((2, 16), torch.nan)}, "not finite"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(
    tmp_path: Path,
    model: LoadedModel,
    tensors: dict[str, torch.Tensor],
    change: dict[str, torch.Tensor],
    reason: str,
) -> None:
    save(tmp_path, {**tensors, **change})
    with pytest.raises(LoraError, match=reason):
        read(tmp_path, model)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"peft_type": "LOHA"}, "it is a LOHA, which cannot be mixed"),
        ({"init_lora_weights": "pissa_niter_16"}, "needs other weights of the model"),
    ],
)
def test_other_kinds_of_peft_are_refused(
    tmp_path: Path,
    model: LoadedModel,
    tensors: dict[str, torch.Tensor],
    options: dict[str, str],
    reason: str,
) -> None:
    save(tmp_path, tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    with pytest.raises(LoraError, match=reason):
        read(tmp_path, model)


@pytest.mark.parametrize(
    ("name", "alpha", "reason"),
    [
        (LAYER, torch.tensor(torch.nan), "is no finite number"),
        (LAYER, torch.ones(2), "is no finite number"),
        (OTHER, torch.tensor(1.0), "is no tensor of a LoRA's factors"),
    ],
)
def test_alphas_that_scale_nothing_are_refused(
    tmp_path: Path,
    model: LoadedModel,
    tensors: dict[str, torch.Tensor],
    name: str,
    alpha: torch.Tensor,
    reason: str,
) -> None:
    save(tmp_path, {**tensors, f"unet.{name}.alpha": alpha})
    with pytest.raises(LoraError, match=reason):
        read(tmp_path, model)


def test_a_damaged_file_is_refused(
    tmp_path: Path, model: LoadedModel, tensors: dict[str, torch.Tensor]
) -> None:
    save(tmp_path, tensors)
    file = tmp_path / "it.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(ModelFolderError, match=r"it.safetensors has only .* bytes"):
        read(tmp_path, model)


def test_a_pickle_is_refused(tmp_path: Path, model: LoadedModel) -> None:
    (tmp_path / "pytorch_lora_weights.bin").write_bytes(b"")
    with pytest.raises(UnsafeModelError, match="may run code"):
        read(tmp_path, model)


def test_one_of_several_files_must_be_named(
    tmp_path: Path, model: LoadedModel, tensors: dict[str, torch.Tensor]
) -> None:
    save(tmp_path, tensors)
    save_file(tensors, tmp_path / "other.safetensors")
    with pytest.raises(ModelFolderError, match="set file to one of: it"):
        read(tmp_path, model)
    check(read(tmp_path, model, file="other.safetensors"), tensors)
