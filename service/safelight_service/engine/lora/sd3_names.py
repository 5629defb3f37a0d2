"""Sd3Names: renames the layers of SD3's original code, for which diffusers has no converter."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NAME = re.compile(r"lora_unet_joint_blocks_(\d+)_(x|context)_block_(\w+)\.(.+)")
_LAYERS = {
    "x": {
        "attn_qkv": ("attn_to_q", "attn_to_k", "attn_to_v"),
        "attn_proj": ("attn_to_out_0",),
        "attn2_qkv": ("attn2_to_q", "attn2_to_k", "attn2_to_v"),
        "attn2_proj": ("attn2_to_out_0",),
        "mlp_fc1": ("ff_net_0_proj",),
        "mlp_fc2": ("ff_net_2",),
        "adaLN_modulation_1": ("norm1_linear",),
    },
    "context": {
        "attn_qkv": ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj"),
        "attn_proj": ("attn_to_add_out",),
        "mlp_fc1": ("ff_context_net_0_proj",),
        "mlp_fc2": ("ff_context_net_2",),
        "adaLN_modulation_1": ("norm1_context_linear",),
    },
}
"""Layers of diffusers for each layer of a block; several share the rows of one."""


def rename_sd3(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a kohya file by diffusers' layers; others stay as they are."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        layers = _LAYERS[found[2]].get(found[3]) if found else None
        if found is None or layers is None:
            renamed[name] = tensor
            continue
        is_up = found[4] == "lora_up.weight"
        parts = tensor.chunk(len(layers)) if is_up else [tensor] * len(layers)
        for layer, part in zip(layers, parts, strict=True):
            if is_up and layer == "norm1_context_linear" and _is_last(name, tensor, tensors):
                part = torch.cat(part.chunk(2)[::-1])
            renamed[f"lora_unet_transformer_blocks_{found[1]}_{layer}.{found[4]}"] = part
    return renamed


def _is_last(name: str, up: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the block is the last one, with shift and scale alone, which diffusers swaps."""
    down = tensors.get(name.replace("lora_up", "lora_down"))
    return down is not None and len(up) == 2 * down.shape[1]
