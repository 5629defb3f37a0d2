"""Naming: names the tensors of an adapter file by the layers of a pipeline."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.loaders import (
    FluxLoraLoaderMixin,
    SD3LoraLoaderMixin,
    StableDiffusionXLLoraLoaderMixin,
)
from diffusers.utils import (
    convert_state_dict_to_diffusers,
    convert_state_dict_to_peft,
    convert_unet_state_dict_to_peft,
)
from torch import Tensor

from safelight_service.engine.folders.errors import explain
from safelight_service.engine.lora.original_names import rename_layers
from safelight_service.engine.pipeline.adapter import find_denoiser_name

_PEFT_PREFIX = "base_model.model."
_TEXT_MODEL = "text_model."
"""Part of names of layers in files that some versions of transformers leave out."""

_KOHYA_PREFIXES = {
    "lora_te_": "text_encoder",
    "lora_te1_": "text_encoder",
    "lora_te2_": "text_encoder_2",
    "lora_te3_": "text_encoder_3",
}
_KOHYA_DENOISERS = ("lora_unet_", "lora_transformer_")
_KOHYA_ENDINGS = {"lora_down.weight": "lora_A.weight", "lora_up.weight": "lora_B.weight"}
_SCALED = {
    "lora_down.weight": ("lora_up.weight",),
    "lora_A.weight": ("lora_B.weight",),
    "lora.down.weight": ("lora.up.weight",),
    "lokr_w2_b": ("lokr_w1", "lokr_w1_a"),
    "lokr_w1_b": ("lokr_w1_a",),
}
"""Tensors whose first side is the rank of an alpha, and those that the alpha scales."""


class LoraError(Exception):
    """An adapter cannot be used with its model; the message says why."""


def find_components(pipeline: Any) -> dict[str, torch.nn.Module]:
    """Return the components of a pipeline that take adapters, by name."""
    denoiser = find_denoiser_name(pipeline)
    return {
        name: module
        for name, module in pipeline.components.items()
        if name == denoiser or (name.startswith("text_encoder") and module is not None)
    }


def name_tensors(tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a file by component, and by PEFT's names in it.

    Alphas are applied to the tensors that they scale.

    Raises:
        LoraError: a tensor belongs to no component that takes adapters.
    """
    components = find_components(pipeline)
    denoiser = find_denoiser_name(pipeline)
    layers = dict(components[denoiser].named_modules())
    scaled, alphas = _apply_alphas(tensors)
    if isinstance(pipeline, SD3LoraLoaderMixin | FluxLoraLoaderMixin):
        scaled = rename_layers(scaled, components[denoiser])
    named, others = _unflatten(scaled, components, denoiser)
    if any(_find_layer(name) in layers for name in others):
        named |= others  # a file of PEFT, which names layers of the denoiser alone
    elif others:
        own = {_find_layer(name) for name in others}
        signs = {name: each for name, each in alphas.items() if name.rpartition(".")[0] in own}
        named |= _convert(others | signs, pipeline)
    grouped: dict[str, dict[str, Tensor]] = {}
    for name in [each for each in named if each not in alphas]:
        component, _, rest = name.partition(".")
        if component not in components:
            # Some converters of diffusers leave the component out.
            component, rest = denoiser, name.removeprefix(_PEFT_PREFIX)
            if _find_layer(name) not in layers:
                raise LoraError(
                    f"{name} is no tensor of a LoRA for {', '.join(components)}, the parts of "
                    f"this {type(pipeline).__name__}"
                )
        for ending, usual in _KOHYA_ENDINGS.items():
            rest = rest.replace(f".{ending}", f".{usual}")
        grouped.setdefault(component, {})[rest] = named[name]
    return {
        component: _to_peft(inside, components[component], is_denoiser=component == denoiser)
        for component, inside in grouped.items()
    }


def _find_layer(name: str) -> str:
    """Return the layer in the name of a tensor."""
    return re.split(r"\.lora[_.]|\.lokr_", name.removeprefix(_PEFT_PREFIX))[0]


def _apply_alphas(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scale factors by alpha over rank; return them, and alphas that scale no more.

    diffusers' converters ignore some alphas, but take their presence as a sign of a format.
    """
    scaled, done = dict(tensors), {}
    for name, alpha in tensors.items():
        layer, _, ending = name.rpartition(".")
        if ending != "alpha":
            continue
        if alpha.numel() != 1 or not math.isfinite(alpha.item()):
            raise LoraError(f"{name} is no finite number")
        for ranked, endings in _SCALED.items():
            if f"{layer}.{ranked}" in tensors:
                rank = len(tensors[f"{layer}.{ranked}"])
                for up in (f"{layer}.{each}" for each in endings):
                    if up in tensors:
                        scaled[up] = tensors[up].float() * (alpha.item() / rank)
                done[name] = torch.tensor(float(rank))
                break
        if f"{layer}.lokr_w2" in tensors and name not in done:
            done[name] = alpha  # whole matrices have no rank, and their alpha no effect
    return {name: each for name, each in scaled.items() if name not in done}, done


def _unflatten(
    tensors: Mapping[str, Tensor], components: Mapping[str, torch.nn.Module], denoiser: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Rename tensors of kohya that name the model's own layers, with underscores for dots.

    Returns the renamed and the other tensors.
    """
    layers = {}
    prefixes = _KOHYA_PREFIXES | dict.fromkeys(_KOHYA_DENOISERS, denoiser)
    for prefix, component in prefixes.items():
        module = components.get(component)
        for name, _ in module.named_modules() if module is not None else ():
            for written in (name, _TEXT_MODEL + name):
                layers[prefix + written.replace(".", "_")] = f"{component}.{name}"
    named, others = {}, {}
    for name, tensor in tensors.items():
        flat, _, ending = name.partition(".")
        if flat in layers:
            named[f"{layers[flat]}.{ending}"] = tensor
        else:
            others[name] = tensor
    return named, others


def _convert(tensors: Mapping[str, Tensor], pipeline: Any) -> dict[str, Tensor]:
    """Rename tensors by diffusers' converter for the pipeline."""
    options: dict[str, Any] = {}
    if isinstance(pipeline, StableDiffusionXLLoraLoaderMixin):
        options["unet_config"] = pipeline.unet.config
    try:
        found: Any = type(pipeline).lora_state_dict(dict(tensors), **options)
    except Exception as error:  # converters raise whatever unexpected names lead to
        raise LoraError(f"diffusers cannot convert it: {explain(error)}") from error
    return dict(found[0] if isinstance(found, tuple) else found)


def _to_peft(
    tensors: dict[str, Tensor], module: torch.nn.Module, *, is_denoiser: bool
) -> dict[str, Tensor]:
    """Rename tensors of one component as PEFT does."""
    if not any("lora_A" in name or "lokr_" in name for name in tensors):
        try:
            if is_denoiser:
                tensors = convert_unet_state_dict_to_peft(tensors)
            else:
                tensors = convert_state_dict_to_peft(convert_state_dict_to_diffusers(tensors))
        except ValueError as error:
            raise LoraError(f"diffusers cannot convert it: {explain(error)}") from error
    if is_denoiser or hasattr(module, "text_model"):
        return tensors
    return {name.removeprefix(_TEXT_MODEL): value for name, value in tensors.items()}
