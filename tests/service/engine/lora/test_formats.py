"""Formats: files of each trainer, for each family, have the effects that were written."""

import functools
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from safelight_service.engine.lora.effects import Factors, Kronecker
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.lora.reading import read_lora
from safelight_service.engine.models.digests import FileDigests
from safelight_service.engine.pipeline.adapter import find_denoiser_name
from safelight_service.settings import AdapterSettings
from support.pipelines import lora_files
from support.pipelines.families import make_pipeline
from support.pipelines.loras import make_lokr, make_lora

FAMILIES = ("sd15", "sdxl", "sd3", "flux-dev", "qwen-image", "z-image")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"


@functools.cache
def pipeline_of(family: str) -> Any:
    return make_pipeline(family)


def make_adapter(
    pipeline: Any, *, has_texts: bool = False
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Make tensors and alphas of all layers, whose ranks and alphas differ."""
    components = [find_denoiser_name(pipeline)]
    if has_texts:
        components += [
            name for name in ("text_encoder", "text_encoder_2") if is_clip(pipeline, name)
        ]
    tensors: dict[str, Tensor] = {}
    for component in components:
        for rank in (1, 2, 3):
            tensors |= make_lora(
                pipeline,
                rank,
                rank,
                component,
                lambda name, rank=rank: number_of(name) % 3 + 1 == rank,  # type: ignore[misc]
            )
    layers = [name.removesuffix(DOWN) for name in tensors if name.endswith(DOWN)]
    return tensors, {layer: float(number_of(layer) % 4 + 1) for layer in layers}


def is_clip(pipeline: Any, component: str) -> bool:
    return "CLIP" in type(getattr(pipeline, component, None)).__name__


def number_of(name: str) -> int:
    return zlib.crc32(name.encode())


def read(folder: Path, pipeline: Any) -> Lora:
    settings = AdapterSettings(name="it", source=str(folder))
    return read_lora(settings, Path(), pipeline, torch.device("cpu"), FileDigests())


def check(lora: Lora, tensors: dict[str, Tensor], alphas: dict[str, float]) -> None:
    """Check that an adapter has the effect of each layer's factors, times alpha over rank."""
    found = {
        f"{component}.{layer}": effect
        for component, effects in lora.effects.items()
        for layer, effect in effects.items()
    }
    assert found.keys() == alphas.keys()
    for layer, alpha in alphas.items():
        effect, down = found[layer], tensors[layer + DOWN]
        assert isinstance(effect, Factors)
        product = effect.up.flatten(1) @ effect.down.flatten(1)
        expected = tensors[layer + UP].flatten(1) @ down.flatten(1) * (alpha / len(down))
        assert torch.allclose(product, expected, rtol=1e-4, atol=1e-6), layer


@pytest.mark.parametrize("family", FAMILIES)
def test_kohya_with_the_names_of_diffusers(tmp_path: Path, family: str) -> None:
    pipeline = pipeline_of(family)
    tensors, alphas = make_adapter(pipeline, has_texts=True)
    save_file(lora_files.to_kohya(tensors, alphas), tmp_path / "it.safetensors")
    check(read(tmp_path, pipeline), tensors, alphas)


def test_kohya_with_the_names_of_sdxl(tmp_path: Path) -> None:
    pipeline = pipeline_of("sdxl")
    tensors, alphas = make_adapter(pipeline, has_texts=True)
    kohya = lora_files.to_kohya(tensors, alphas, lora_files.rename_sgm)
    save_file(kohya, tmp_path / "it.safetensors")
    check(read(tmp_path, pipeline), tensors, alphas)


@pytest.mark.parametrize(
    ("family", "patterns", "fused", "left_out"),
    [
        ("flux-dev", lora_files.BFL, lora_files.BFL_FUSED, ("norm_out",)),
        ("sd3", lora_files.SD3, lora_files.SD3_FUSED, ("norm1_context",)),
    ],
)
def test_kohya_with_names_of_the_original_code(
    tmp_path: Path,
    family: str,
    patterns: tuple[tuple[str, str], ...],
    fused: dict[str, tuple[str, ...]],
    left_out: tuple[str, ...],
) -> None:
    pipeline = pipeline_of(family)
    tensors, alphas = make_adapter(pipeline, has_texts=True)
    parts = tuple(part for parts in fused.values() for part in parts)
    for layer in [*alphas]:
        if any(part in layer for part in left_out):
            del alphas[layer], tensors[layer + DOWN], tensors[layer + UP]
        elif layer.endswith(parts):  # a layer that holds several has one alpha per rank
            alphas[layer] = float(len(tensors[layer + DOWN]))
    written, written_alphas = dict(tensors), dict(alphas)
    lora_files.fuse_layers(written, written_alphas, fused)
    rename = lora_files.rename_by(patterns)
    kohya = lora_files.to_kohya(written, written_alphas, rename)
    save_file(kohya, tmp_path / "it.safetensors")
    check(read(tmp_path, pipeline), tensors, alphas)


def test_the_last_block_of_sd3_swaps_shift_and_scale(tmp_path: Path) -> None:
    pipeline = pipeline_of("sd3")
    tensors, alphas = make_adapter(pipeline)
    [layer] = [each for each in alphas if "norm1_context" in each]
    swapped = {**tensors, layer + UP: torch.cat(tensors[layer + UP].chunk(2)[::-1])}
    rename = lora_files.rename_by(
        (
            (
                r"transformer_blocks\.0\.norm1_context\.linear",
                "joint_blocks.0.context_block.adaLN_modulation.1",
            ),
        )
    )
    kohya = lora_files.to_kohya(swapped, {layer: alphas[layer]}, rename)
    save_file(kohya, tmp_path / "it.safetensors")
    check(read(tmp_path, pipeline), tensors, {layer: alphas[layer]})


@pytest.mark.parametrize("family", ["qwen-image", "z-image"])
def test_a_file_of_comfyui(tmp_path: Path, family: str) -> None:
    pipeline = pipeline_of(family)
    tensors, alphas = make_adapter(pipeline)
    scalars = {f"{layer}.alpha": torch.tensor(alpha) for layer, alpha in alphas.items()}
    named = {
        name.replace("transformer.", "diffusion_model.", 1): each
        for name, each in (tensors | scalars).items()
    }
    save_file(named, tmp_path / "it.safetensors")
    check(read(tmp_path, pipeline), tensors, alphas)


def test_a_lokr_of_kohya_scales_by_alpha_where_it_has_a_rank(tmp_path: Path) -> None:
    pipeline = pipeline_of("sd15")
    product = make_lokr(pipeline, 1, 2, is_chosen=lambda name: name.endswith("attn1.to_q"))
    whole = make_lokr(pipeline, 2, 2, is_chosen=lambda name: name.endswith("attn1.to_k"))
    kohya: dict[str, Tensor] = {}
    for name, tensor in (product | whole).items():
        layer, _, part = name.removeprefix("unet.").rpartition(".")
        flat = f"lora_unet_{layer.replace('.', '_')}"
        kohya |= {f"{flat}.{part}": tensor, f"{flat}.alpha": torch.tensor(1.0)}
    save_file(kohya, tmp_path / "it.safetensors")
    effects = read(tmp_path, pipeline).effects["unet"]
    for layer, effect in effects.items():
        assert isinstance(effect, Kronecker)
        scale = 0.5 if layer.endswith("to_q") else 1.0
        assert torch.equal(effect.left, (product | whole)[f"unet.{layer}.lokr_w1"] * scale)
    assert len(effects) == len(product) // 3 + len(whole) // 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_peft(tmp_path: Path, family: str) -> None:
    pipeline = pipeline_of(family)
    tensors, alphas = make_adapter(pipeline)
    component = find_denoiser_name(pipeline)
    pattern = {layer.removeprefix(f"{component}."): alpha for layer, alpha in alphas.items()}
    options = {"r": 8, "lora_alpha": 8, "alpha_pattern": pattern}
    lora_files.save_peft(tmp_path, component, tensors, options)
    check(read(tmp_path, pipeline), tensors, alphas)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_of_diffusers_with_options(tmp_path: Path, family: str) -> None:
    pipeline = pipeline_of(family)
    tensors, alphas = make_adapter(pipeline, has_texts=True)
    options: dict[str, Any] = {}
    for component in {layer.partition(".")[0] for layer in alphas}:
        options[f"{component}.alpha_pattern"] = {
            layer.removeprefix(f"{component}."): alpha
            for layer, alpha in alphas.items()
            if layer.startswith(f"{component}.")
        }
    metadata = {"lora_adapter_metadata": json.dumps(options)}
    save_file(tensors, tmp_path / "it.safetensors", metadata)
    check(read(tmp_path, pipeline), tensors, alphas)


def test_old_names_of_diffusers(tmp_path: Path) -> None:
    pipeline = pipeline_of("sd15")
    tensors, alphas = make_adapter(pipeline, has_texts=True)
    alphas = {layer: float(len(tensors[layer + DOWN])) for layer in alphas if is_old(layer)}
    old = {}
    for layer in alphas:
        for ending, usual in ((DOWN, "down"), (UP, "up")):
            block, _, part = layer.rpartition(".to_" if "unet" in layer else ".")
            part = part.removesuffix(".0").removesuffix("_proj")
            infix = ".processor" if "unet" in layer else ""
            old[f"{block}{infix}.to_{part}_lora.{usual}.weight"] = tensors[layer + ending]
    save_file(old, tmp_path / "it.safetensors")
    check(read(tmp_path, pipeline), tensors, alphas)


def is_old(layer: str) -> bool:
    """Whether old files have a layer: those of attention."""
    return "attn1.to_" in layer or "attn2.to_" in layer or "self_attn" in layer
