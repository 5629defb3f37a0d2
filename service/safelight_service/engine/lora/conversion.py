"""Conversion: makes the effects of an adapter from the tensors of its file."""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from safelight_service.engine.lora.effects import Dora, Effect, Factors, Kronecker
from safelight_service.engine.lora.naming import LoraError, find_components, name_tensors

Config = Mapping[str, Any]
"""Options of PEFT, such as `lora_alpha`, of the layers of one component."""

_NAME = re.compile(
    r"(.+)\.(?:lora_([AB])\.weight|lora_(magnitude)_vector(?:\.weight)?|(lokr_w[12](?:_[ab])?))"
)
"""Name of a tensor: its layer and its part in the effect on it."""

_OTHER_KINDS = {
    "dora_scale": "DoRA of another form than PEFT's",
    "lokr_t2": "LoKr in Tucker form",
    "hada_": "LoHa",
    "oft_": "OFT",
    "boft_": "BOFT",
}
"""Parts of names of tensors in kinds of adapters that cannot be mixed."""


def check_pipeline(pipeline: Any) -> None:
    """Check that diffusers has a converter for adapters of a pipeline.

    Raises:
        LoraError: it has none.
    """
    if not hasattr(pipeline, "lora_state_dict"):
        raise LoraError(f"diffusers reads no adapters for {type(pipeline).__name__}")


def convert(
    tensors: Mapping[str, Tensor],
    configs: Mapping[str, Config],
    pipeline: Any,
    device: torch.device,
) -> dict[str, dict[str, Effect]]:
    """Return the effects of an adapter by component and layer, in the precision of the layers.

    Args:
        tensors: the tensors of the file: PEFT's, diffusers' or kohya's.
        configs: options of PEFT by component, as far as the file names them.
        pipeline: the pipeline of the model.
        device: the device that runs the layers.

    Raises:
        LoraError: the adapter is of another kind, has unknown tensors, or does not fit the model.
    """
    for name in tensors:
        for part, kind in _OTHER_KINDS.items():
            if part in name:
                raise LoraError(f"{name} belongs to a {kind}, which cannot be mixed")
    components = find_components(pipeline)
    effects = {
        component: _make_effects(
            inside, configs.get(component, {}), components[component], component, device
        )
        for component, inside in sorted(name_tensors(tensors, pipeline).items())
    }
    if not effects:
        raise LoraError("it holds no tensors")
    return effects


def _make_effects(
    tensors: Mapping[str, Tensor],
    config: Config,
    module: torch.nn.Module,
    component: str,
    device: torch.device,
) -> dict[str, Effect]:
    """Make the effect on each layer, and check that it fits."""
    layers = dict(module.named_modules())
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        if found is None:
            raise LoraError(f"{component}.{name} is no tensor of a LoRA's factors")
        if found[1] not in layers:
            raise LoraError(f"{component}.{name}: the model has no such layer")
        if not tensor.isfinite().all():
            raise LoraError(f"{component}.{name} is not finite")
        parts.setdefault(found[1], {})[found[2] or found[3] or found[4]] = tensor
    effects: dict[str, Effect] = {}
    for name, own in parts.items():
        where, layer = f"{component}.{name}", layers[name]
        effect = _make_effect(own, layer, _scaling(name, own, config), where)
        _check_sizes(effect, layer, where)
        weight: Any = layer.weight
        effects[name] = type(effect)(*(each.to(device, weight.dtype) for each in effect))
    return effects


def _make_effect(own: Mapping[str, Tensor], layer: Any, scaling: float, where: str) -> Effect:
    """Make an effect from the tensors of one layer, scaled by alpha over rank."""
    match own:
        case {"A": down, "B": up, "magnitude": magnitude, **rest} if not rest:
            return Dora(down, up.float() * scaling, magnitude.flatten())
        case {"A": down, "B": up, **rest} if not rest:
            return Factors(down, up.float() * scaling)
        case {"A": _} | {"B": _} | {"magnitude": _}:
            both = any(part.startswith("lokr") for part in own)
            fault = "is both a LoRA and a LoKr" if both else "lacks its other factor"
            raise LoraError(f"{where} {fault}")
    left, right = (_multiply_out(own, f"lokr_w{number}", where) for number in (1, 2))
    kernel = getattr(layer, "kernel_size", ())
    if right.ndim == 2 and right.shape[1] % math.prod(kernel) == 0:
        right = right.reshape(len(right), -1, *kernel)
    return Kronecker(left.float() * scaling, right)


def _multiply_out(own: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    """Return a matrix of a LoKr, which files may hold as a product."""
    match own.get(name), own.get(f"{name}_a"), own.get(f"{name}_b"):
        case Tensor() as whole, None, None:
            return whole
        case None, Tensor() as first, Tensor() as second if first.shape[1:] == second.shape[:1]:
            return first.float() @ second.float()
    raise LoraError(f"{where} lacks its other factor")


def _check_sizes(effect: Effect, layer: Any, where: str) -> None:
    """Check that an effect fits a layer.

    Raises:
        LoraError: it does not, or the layer is of a kind that has none.
    """
    kernel: tuple[int, ...]
    match layer:
        case torch.nn.Linear():
            inputs, outputs, kernel = layer.in_features, layer.out_features, ()
        case torch.nn.Conv2d(groups=1, padding_mode="zeros"):
            inputs, outputs, kernel = layer.in_channels, layer.out_channels, layer.kernel_size
        case _:
            raise LoraError(f"{where}: a {type(layer).__name__} takes no adapter")
    sizes = [tuple(each.shape) for each in effect]
    if isinstance(effect, Kronecker):
        left, right = sizes
        product = tuple(map(math.prod, zip(left, right[:2], strict=False)))
        fits = (len(left), product, right[2:]) == (2, (outputs, inputs), kernel)
    else:
        rank = len(effect.down)
        expected = [(rank, inputs, *kernel), (outputs, rank, *(1 for _ in kernel)), (outputs,)]
        fits = sizes == expected[: len(sizes)]
        if isinstance(effect, Dora) and type(layer.weight.data) is not Tensor:
            raise LoraError(f"{where}: a DoRA needs weights that are not quantized")
    if not fits:
        raise LoraError(
            f"{where}: the factors have sizes {', '.join(map(str, sizes))}, but the layer of the "
            f"model has {inputs} inputs, {outputs} outputs"
            + (f" and a kernel of {kernel}" if kernel else "")
        )


def _scaling(layer: str, own: Mapping[str, Tensor], config: Config) -> float:
    """Return alpha over rank, as PEFT computes it."""
    alphas = config.get("alpha_pattern")
    if "A" not in own:  # a LoKr
        rank = _of_pattern(layer, config.get("rank_pattern"), config.get("r", 1))
        return _of_pattern(layer, alphas, config.get("alpha", rank)) / rank
    rank = len(own["A"])
    alpha = _of_pattern(layer, alphas, config.get("lora_alpha", rank))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _of_pattern(layer: str, pattern: Mapping[str, float] | None, default: float) -> float:
    """Return the value of the first pattern that ends a layer's name, as PEFT does."""
    for key, value in (pattern or {}).items():
        if re.fullmatch(rf"(.*\.)?({key})", layer):
            return float(value)
    return float(default)
