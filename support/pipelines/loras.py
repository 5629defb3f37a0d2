"""LoRAs: tensors of random adapters for the tiny pipelines, as diffusers names them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from safelight_service.engine.pipeline.adapter import find_denoiser_name


def make_lora(
    pipeline: Any,
    seed: int,
    rank: int = 2,
    component: str = "",
    is_chosen: Callable[[str], bool] = lambda _: True,
) -> dict[str, Tensor]:
    """Make an adapter of a component's linear layers and convolutions; of the denoiser by default.

    `is_chosen` chooses layers by name.
    """
    component = component or find_denoiser_name(pipeline)
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in getattr(pipeline, component).named_modules():
        is_plain = isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        if is_plain and getattr(layer, "groups", 1) == 1 and is_chosen(name):
            shape = layer.weight.shape
            ones = [1] * (len(shape) - 2)
            down = torch.randn(rank, *shape[1:], generator=generator)
            up = torch.randn(shape[0], rank, *ones, generator=generator)
            tensors[f"{component}.{name}.lora_A.weight"] = down / shape[1:].numel() ** 0.5
            tensors[f"{component}.{name}.lora_B.weight"] = up * 0.1
    return tensors


def fuse(module: torch.nn.Module, tensors: Mapping[str, Tensor], scale: float) -> None:
    """Add an adapter of one component to the weights of its layers."""
    for name, down in tensors.items():
        if name.endswith(".lora_A.weight"):
            up = tensors[name.replace("lora_A", "lora_B")]
            layer = module.get_submodule(name.partition(".")[2].removesuffix(".lora_A.weight"))
            product = up.flatten(1) @ down.flatten(1)
            with torch.no_grad():
                weight: Any = layer.weight
                weight += scale * product.view_as(weight)
