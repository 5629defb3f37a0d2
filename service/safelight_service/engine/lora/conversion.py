"""Conversion: reads the tensors of an adapter file by diffusers' own converters."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
    get_peft_kwargs,
)
from torch import Tensor

from safelight_service.engine.folders.errors import explain
from safelight_service.engine.lora.lora import Factors
from safelight_service.engine.pipeline.adapter import find_denoiser_name

Config = Mapping[str, Any]
"""Options of PEFT, such as `lora_alpha`, of the layers of one component."""

_PEFT_PREFIX = "base_model.model."
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_OTHER_KINDS = {
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lokr_": "LoKr",
    "hada_": "LoHa",
    "oft_": "OFT",
    "boft_": "BOFT",
}
"""Parts of names of tensors in kinds of adapters whose effects are not products of two factors."""


class LoraError(Exception):
    """An adapter cannot be used with its model; the message says why."""


def check_pipeline(pipeline: Any) -> None:
    """Check that diffusers has a converter for adapters of a pipeline.

    Raises:
        LoraError: it has none.
    """
    if not hasattr(pipeline, "lora_state_dict"):
        raise LoraError(f"diffusers reads no adapters for {type(pipeline).__name__}")


def convert(
    tensors: Mapping[str, Tensor], configs: Mapping[str, Config], pipeline: Any
) -> dict[str, dict[str, Factors]]:
    """Return the factors of an adapter by component and layer, in the precision of the layers.

    Args:
        tensors: the tensors of the file: PEFT's, diffusers' or kohya's.
        configs: options of PEFT by component, as far as the file names them.
        pipeline: the pipeline of the model, on its device.

    Raises:
        LoraError: the adapter is of another kind, has unknown tensors, or does not fit the model.
    """
    for name in tensors:
        for part, kind in _OTHER_KINDS.items():
            if part in name:
                raise LoraError(f"{name} belongs to a {kind}, which cannot be mixed; use a LoRA")
    named, alphas = _name_by_component(tensors, pipeline)
    denoiser = find_denoiser_name(pipeline)
    components = {
        name: module
        for name, module in pipeline.components.items()
        if name == denoiser or (name.startswith("text_encoder") and module is not None)
    }
    factors: dict[str, dict[str, Factors]] = {}
    for component in sorted({name.partition(".")[0] for name in named}):
        if component not in components:
            foreign = next(name for name in named if name.partition(".")[0] == component)
            raise LoraError(
                f"{foreign} is no tensor of a LoRA for {', '.join(components)}, the parts of this "
                f"{type(pipeline).__name__}"
            )
        inside = _strip(component, named)
        is_denoiser = component == denoiser
        inside = _to_peft(inside, components[component], is_denoiser=is_denoiser)
        own = {name: value for name, value in alphas.items() if name.startswith(f"{component}.")}
        config = configs.get(component)
        if config is None:
            config = _infer_config(inside, _strip(component, own), is_denoiser=is_denoiser)
        factors[component] = _pair(inside, config, components[component], component)
    if not factors:
        raise LoraError("it holds no tensors")
    return factors


def _name_by_component(
    tensors: Mapping[str, Tensor], pipeline: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Rename tensors as diffusers does; return them and the alphas, by component and layer."""
    renamed = _rename_peft(tensors, pipeline)
    options: dict[str, Any] = {"return_alphas": True}
    if isinstance(pipeline, StableDiffusionXLLoraLoaderMixin):
        options["unet_config"] = pipeline.unet.config
    try:
        found: Any = type(pipeline).lora_state_dict(renamed, **options)
    except Exception as error:  # converters raise whatever unexpected names lead to
        raise LoraError(f"diffusers cannot convert it: {explain(error)}") from error
    named, alphas = found if isinstance(found, tuple) else (found, None)
    return named, {name: float(alpha) for name, alpha in (alphas or {}).items()}


def _rename_peft(tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, Tensor]:
    """Name the tensors of a file of PEFT as diffusers does, if their layers are the denoiser's."""
    denoiser = find_denoiser_name(pipeline)
    layers = dict(getattr(pipeline, denoiser).named_modules())
    stripped = {name.removeprefix(_PEFT_PREFIX): value for name, value in tensors.items()}
    is_peft = all(name.startswith(_PEFT_PREFIX) for name in tensors)
    if is_peft and any(name.split(".lora_")[0] in layers for name in stripped):
        return {f"{denoiser}.{name}": value for name, value in stripped.items()}
    return dict(tensors)


def _strip(component: str, named: Mapping[str, Any]) -> dict[str, Any]:
    prefix = f"{component}."
    return {
        name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)
    }


def _to_peft(
    tensors: dict[str, Tensor], module: torch.nn.Module, *, is_denoiser: bool
) -> dict[str, Tensor]:
    """Rename tensors of one component as PEFT does."""
    if is_denoiser:
        is_named = any("lora_A" in name for name in tensors)
        return tensors if is_named else dict(convert_unet_state_dict_to_peft(tensors))
    renamed = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
    if hasattr(module, "text_model"):
        return dict(renamed)
    return {name.removeprefix("text_model."): value for name, value in renamed.items()}


def _infer_config(
    tensors: Mapping[str, Tensor], alphas: Mapping[str, float], *, is_denoiser: bool
) -> Config:
    """Return options of PEFT as diffusers infers them from a file without any."""
    ranks = {name: value.shape[1] for name, value in tensors.items() if name.endswith(_UP)}
    if not (ranks and alphas):
        return {}
    config: Config = get_peft_kwargs(ranks, dict(alphas), dict(tensors), is_unet=is_denoiser)
    return config


def _pair(
    tensors: Mapping[str, Tensor], config: Config, module: torch.nn.Module, component: str
) -> dict[str, Factors]:
    """Pair the factors of each layer, check their sizes, and scale them."""
    layers = dict(module.named_modules())
    factors = {}
    for name, tensor in tensors.items():
        layer_name, _, ending = name.rpartition(".lora_")
        where = f"{component}.{name}"
        if f".lora_{ending}" not in (_DOWN, _UP):
            raise LoraError(f"{where} is no tensor of a LoRA's factors")
        if layer_name not in layers:
            raise LoraError(f"{where}: the model has no such layer")
        if ending.startswith("B"):
            if layer_name + _DOWN not in tensors:
                raise LoraError(f"{where} lacks its other factor")
            continue
        up = tensors.get(layer_name + _UP)
        if up is None:
            raise LoraError(f"{where} lacks its other factor")
        layer = layers[layer_name]
        _check_sizes(layer, tensor, up, where)
        weight: Any = layer.weight
        factors[layer_name] = Factors(
            tensor.to(weight.device, weight.dtype),
            (up.float() * _scaling(layer_name, len(tensor), config)).to(
                weight.device, weight.dtype
            ),
        )
    return factors


def _check_sizes(layer: Any, down: Tensor, up: Tensor, where: str) -> None:
    """Check that factors fit a layer.

    Raises:
        LoraError: they do not, or the layer is of a kind that has none.
    """
    rank = len(down)
    expected: tuple[tuple[int, ...], tuple[int, ...]]
    match layer:
        case torch.nn.Linear():
            expected = (rank, layer.in_features), (layer.out_features, rank)
        case torch.nn.Conv2d(groups=1, padding_mode="zeros"):
            expected = (
                (rank, layer.in_channels, *layer.kernel_size),
                (layer.out_channels, rank, 1, 1),
            )
        case _:
            raise LoraError(f"{where}: a {type(layer).__name__} takes no adapter")
    if (tuple(down.shape), tuple(up.shape)) != expected:
        raise LoraError(
            f"{where}: the factors have sizes {tuple(down.shape)} and {tuple(up.shape)}, but the "
            f"layer of the model needs {expected[0]} and {expected[1]}"
        )
    if not (down.isfinite().all() and up.isfinite().all()):
        raise LoraError(f"{where}: the factors are not finite")


def _scaling(layer: str, rank: int, config: Config) -> float:
    """Return alpha over rank, as PEFT computes it."""
    alpha = float(_of_pattern(layer, config.get("alpha_pattern"), config.get("lora_alpha", rank)))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(layer: str, pattern: Mapping[str, float] | None, default: float) -> float:
    """Return the value of the first pattern that ends a layer's name, as PEFT does."""
    for key, value in (pattern or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", layer):
            return value
    return default
