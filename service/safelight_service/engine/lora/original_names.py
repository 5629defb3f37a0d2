"""OriginalNames: renames layers of the original code of SD3, FLUX.1 and Chroma in kohya's files.

diffusers has no converter for SD3, and one for FLUX that knows only the size of its first model.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NAME = re.compile(
    r"lora_unet_(joint|double|single)_blocks_(\d+)_(\w+)\.(lora_(?:down|up)\.weight)"
)
_BLOCKS = {
    "joint": "transformer_blocks",
    "double": "transformer_blocks",
    "single": "single_transformer_blocks",
}
_QUERIES = ("attn_to_q", "attn_to_k", "attn_to_v")
_ADDED_QUERIES = ("attn_add_q_proj", "attn_add_k_proj", "attn_add_v_proj")
_LAYERS = {
    "joint": {
        "x_block_attn_qkv": _QUERIES,
        "x_block_attn_proj": ("attn_to_out_0",),
        "x_block_attn2_qkv": ("attn2_to_q", "attn2_to_k", "attn2_to_v"),
        "x_block_attn2_proj": ("attn2_to_out_0",),
        "x_block_mlp_fc1": ("ff_net_0_proj",),
        "x_block_mlp_fc2": ("ff_net_2",),
        "x_block_adaLN_modulation_1": ("norm1_linear",),
        "context_block_attn_qkv": _ADDED_QUERIES,
        "context_block_attn_proj": ("attn_to_add_out",),
        "context_block_mlp_fc1": ("ff_context_net_0_proj",),
        "context_block_mlp_fc2": ("ff_context_net_2",),
        "context_block_adaLN_modulation_1": ("norm1_context_linear",),
    },
    "double": {
        "img_attn_qkv": _QUERIES,
        "img_attn_proj": ("attn_to_out_0",),
        "img_mlp_0": ("ff_net_0_proj",),
        "img_mlp_2": ("ff_net_2",),
        "img_mod_lin": ("norm1_linear",),
        "txt_attn_qkv": _ADDED_QUERIES,
        "txt_attn_proj": ("attn_to_add_out",),
        "txt_mlp_0": ("ff_context_net_0_proj",),
        "txt_mlp_2": ("ff_context_net_2",),
        "txt_mod_lin": ("norm1_context_linear",),
    },
    "single": {
        "linear1": (*_QUERIES, "proj_mlp"),
        "linear2": ("proj_out",),
        "modulation_lin": ("norm_linear",),
    },
}
"""diffusers' layers for each layer of a block; several share the outputs of one."""


def rename_layers(tensors: Mapping[str, Tensor], denoiser: torch.nn.Module) -> dict[str, Tensor]:
    """Rename tensors by the layers of the denoiser; others stay as they are."""
    sizes = {
        name.replace(".", "_"): layer.out_features
        for name, layer in denoiser.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = _NAME.fullmatch(name)
        own = _LAYERS[found[1]].get(found[3], ()) if found else ()
        layers = [f"{_BLOCKS[found[1]]}_{found[2]}_{layer}" for layer in own] if found else []
        if found is None or not layers or not sizes.keys() >= {*layers}:
            renamed[name] = tensor
            continue
        parts: list[Tensor] = [tensor] * len(layers)
        rows = [sizes[layer] for layer in layers]
        if found[4] == "lora_up.weight" and sum(rows) == len(tensor):
            parts = [*torch.split(tensor, rows)]
            if own == ("norm1_context_linear",) and _is_last(name, tensor, tensors):
                parts = [torch.cat(tensor.chunk(2)[::-1])]
        for layer, part in zip(layers, parts, strict=True):
            renamed[f"lora_unet_{layer}.{found[4]}"] = part
    return renamed


def _is_last(name: str, up: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    """Whether a block is the last one, with shift and scale alone, which diffusers swaps."""
    down = tensors.get(name.replace("lora_up", "lora_down"))
    return down is not None and len(up) == 2 * down.shape[1]
