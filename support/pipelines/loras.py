"""LoRAs: tensors of random adapters for the tiny pipelines, as diffusers names them."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from safelight_service.engine.pipeline.adapter import find_denoiser_name

_NAME = re.compile(r"\w+\.(.+)\.(lora_\w+(?:\.weight)?|lokr_\w+)")
"""Name of a tensor: its component, its layer and its part."""

IsChosen = Callable[[str], bool]
"""Chooses layers by name."""


def choose_all(_: str) -> bool:
    """Choose every layer."""
    return True


def make_lora(
    pipeline: Any,
    seed: int,
    rank: int = 2,
    component: str = "",
    is_chosen: IsChosen = choose_all,
) -> dict[str, Tensor]:
    """Make a LoRA of a component's linear layers and convolutions; of the denoiser by default."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in _list_layers(pipeline, component, is_chosen):
        shape = layer.weight.shape
        ones = [1] * (len(shape) - 2)
        down = torch.randn(rank, *shape[1:], generator=generator)
        up = torch.randn(shape[0], rank, *ones, generator=generator)
        tensors[f"{name}.lora_A.weight"] = down / shape[1:].numel() ** 0.5
        tensors[f"{name}.lora_B.weight"] = up * 0.1
    return tensors


def make_dora(
    pipeline: Any,
    seed: int,
    rank: int = 2,
    component: str = "",
    is_chosen: IsChosen = choose_all,
) -> dict[str, Tensor]:
    """Make a DoRA, which also changes the length of each output's weights by up to a fifth."""
    tensors = make_lora(pipeline, seed, rank, component, is_chosen)
    generator = torch.Generator().manual_seed(seed)
    for name, layer in _list_layers(pipeline, component, is_chosen):
        lengths = layer.weight.detach().flatten(1).norm(dim=1)
        factors = 0.8 + 0.4 * torch.rand(len(lengths), generator=generator)
        tensors[f"{name}.lora_magnitude_vector"] = lengths * factors
    return tensors


def make_lokr(
    pipeline: Any,
    seed: int,
    rank: int = 2,
    component: str = "",
    is_chosen: IsChosen = choose_all,
) -> dict[str, Tensor]:
    """Make a LoKr of layers with even sides; those of even seeds hold whole matrices."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in _list_layers(pipeline, component, is_chosen):
        outputs, inputs, *kernel = layer.weight.shape
        if outputs % 2 or inputs % 2:
            continue
        tensors[f"{name}.lokr_w1"] = torch.randn(2, 2, generator=generator)
        low = torch.randn(outputs // 2, rank, generator=generator)
        high = torch.randn(rank, inputs // 2 * torch.Size(kernel).numel(), generator=generator)
        high *= 0.1 / high.shape[1] ** 0.5
        if seed % 2:
            tensors |= {f"{name}.lokr_w2_a": low, f"{name}.lokr_w2_b": high}
        else:
            tensors[f"{name}.lokr_w2"] = (low @ high).view(outputs // 2, inputs // 2, *kernel)
    return tensors


def fuse(module: torch.nn.Module, tensors: Mapping[str, Tensor], scale: float) -> None:
    """Change the weights of a component's layers as an adapter of any kind does."""
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        layer, part = _NAME.fullmatch(name).groups()  # type: ignore[union-attr]
        parts.setdefault(layer, {})[part] = tensor
    for name, own in parts.items():
        weight: Any = module.get_submodule(name).weight
        if "lokr_w1" in own:
            right = own["lokr_w2"] if "lokr_w2" in own else own["lokr_w2_a"] @ own["lokr_w2_b"]
            change = torch.kron(own["lokr_w1"], right.flatten(1))
        else:
            change = own["lora_B.weight"].flatten(1) @ own["lora_A.weight"].flatten(1)
        changed = weight.detach() + scale * change.view_as(weight)
        if "lora_magnitude_vector" in own:
            gains = own["lora_magnitude_vector"] / changed.flatten(1).norm(dim=1)
            changed = changed * gains.view(-1, *[1] * (weight.ndim - 1))
        with torch.no_grad():
            weight.copy_(changed)


def _list_layers(pipeline: Any, component: str, is_chosen: IsChosen) -> Iterator[tuple[str, Any]]:
    component = component or find_denoiser_name(pipeline)
    for name, layer in getattr(pipeline, component).named_modules():
        is_plain = isinstance(layer, torch.nn.Linear | torch.nn.Conv2d)
        if is_plain and getattr(layer, "groups", 1) == 1 and is_chosen(name):
            yield f"{component}.{name}", layer
