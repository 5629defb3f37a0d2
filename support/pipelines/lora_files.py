"""LoRA files: adapters in the formats of several trainers, from tensors named by diffusers."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

_KOHYA_COMPONENTS = {
    "unet": "lora_unet_",
    "transformer": "lora_unet_",
    "text_encoder": "lora_te1_",
    "text_encoder_2": "lora_te2_",
    "text_encoder_3": "lora_te3_",
}
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"

Rename = Callable[[str], str]
"""Returns the name of a layer in the original code of its model."""

SGM = (
    (r"^conv_in$", "input_blocks.0.0"),
    (r"^conv_out$", "out.2"),
    (r"^time_embedding\.linear_1$", "time_embed.0"),
    (r"^time_embedding\.linear_2$", "time_embed.2"),
    (r"^add_embedding\.linear_1$", "label_emb.0.0"),
    (r"^add_embedding\.linear_2$", "label_emb.0.2"),
    (r"\.conv1$", ".in_layers.2"),
    (r"\.conv2$", ".out_layers.3"),
    (r"\.time_emb_proj$", ".emb_layers.1"),
    (r"\.conv_shortcut$", ".skip_connection"),
)
"""Names of layers outside the blocks of SDXL, and in its residual blocks."""

BFL = (
    (r"^transformer_blocks\.", "double_blocks."),
    (r"^single_transformer_blocks\.", "single_blocks."),
    (r"(double_blocks\.\d+)\.attn\.to_out\.0$", r"\1.img_attn.proj"),
    (r"\.attn\.to_add_out$", ".txt_attn.proj"),
    (r"\.ff\.net\.0\.proj$", ".img_mlp.0"),
    (r"\.ff\.net\.2$", ".img_mlp.2"),
    (r"\.ff_context\.net\.0\.proj$", ".txt_mlp.0"),
    (r"\.ff_context\.net\.2$", ".txt_mlp.2"),
    (r"\.norm1\.linear$", ".img_mod.lin"),
    (r"\.norm1_context\.linear$", ".txt_mod.lin"),
    (r"(single_blocks\.\d+)\.norm\.linear$", r"\1.modulation.lin"),
    (r"(single_blocks\.\d+)\.proj_out$", r"\1.linear2"),
    (r"^x_embedder$", "img_in"),
    (r"^context_embedder$", "txt_in"),
    (r"^time_text_embed\.timestep_embedder\.linear_1$", "time_in.in_layer"),
    (r"^time_text_embed\.text_embedder\.linear_2$", "vector_in.out_layer"),
    (r"^proj_out$", "final_layer.linear"),
)
"""Names of layers of FLUX.1; the fused ones are below."""

SD3 = (
    (r"^transformer_blocks\.", "joint_blocks."),
    (r"\.attn\.to_out\.0$", ".x_block.attn.proj"),
    (r"\.attn\.to_add_out$", ".context_block.attn.proj"),
    (r"\.ff\.net\.0\.proj$", ".x_block.mlp.fc1"),
    (r"\.ff\.net\.2$", ".x_block.mlp.fc2"),
    (r"\.norm1\.linear$", ".x_block.adaLN_modulation.1"),
)
"""Names of layers in the blocks of SD3, of which the tiny one has only the last."""

SD3_FUSED = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}

BFL_FUSED = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
}


def rename_by(patterns: tuple[tuple[str, str], ...]) -> Rename:
    """Return a function that applies all patterns, in order."""

    def rename(layer: str) -> str:
        for pattern, name in patterns:
            layer = re.sub(pattern, name, layer)
        return layer

    return rename


def rename_sgm(layer: str) -> str:
    """Return the name of a layer of a UNet with one layer in each block, as in SDXL's code."""
    layer = rename_by(SGM)(layer)
    inner = {"resnets": 0, "attentions": 1, "upsamplers": 2}
    if found := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.0\.(.+)", layer):
        return f"input_blocks.{1 + 2 * int(found[1])}.{inner[found[2]]}.{found[3]}"
    if found := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv", layer):
        return f"input_blocks.{2 + 2 * int(found[1])}.0.op"
    if found := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", layer):
        return f"output_blocks.{2 * int(found[1]) + int(found[3])}.{inner[found[2]]}.{found[4]}"
    if found := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv", layer):
        return f"output_blocks.{2 * int(found[1]) + 1}.2.conv"
    if found := re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", layer):
        place = 1 if found[1] == "attentions" else 2 * int(found[2])
        return f"middle_block.{place}.{found[3]}"
    return layer


def to_kohya(
    tensors: Mapping[str, Tensor], alphas: Mapping[str, float], rename: Rename = str
) -> dict[str, Tensor]:
    """Return the tensors of kohya's file; `alphas` by component and layer."""
    found = {}
    for layer, alpha in alphas.items():
        component, _, name = layer.partition(".")
        is_denoiser = component in ("unet", "transformer")
        name = rename(name) if is_denoiser else name
        if not is_denoiser and name != "text_projection" and not name.startswith("text_model."):
            name = f"text_model.{name}"
        flat = _KOHYA_COMPONENTS[component] + name.replace(".", "_")
        found[f"{flat}.lora_down.weight"] = tensors[layer + _DOWN]
        found[f"{flat}.lora_up.weight"] = tensors[layer + _UP]
        found[f"{flat}.alpha"] = torch.tensor(alpha)
    return found


def fuse_layers(
    tensors: dict[str, Tensor], alphas: dict[str, float], fused: Mapping[str, tuple[str, ...]]
) -> None:
    """Replace the factors of several layers by those of one that holds all of them."""
    for name, parts in fused.items():
        blocks = [layer.removesuffix(parts[0]) for layer in alphas if layer.endswith(parts[0])]
        for block in blocks:
            layers = [block + part for part in parts]
            if not alphas.keys() >= {*layers}:
                continue
            whole = block + name
            alphas[whole] = sum(alphas.pop(layer) for layer in layers)
            tensors[whole + _DOWN] = torch.cat([tensors.pop(layer + _DOWN) for layer in layers])
            ups = [tensors.pop(layer + _UP) for layer in layers]
            tensors[whole + _UP] = _stack_diagonally(ups)


def _stack_diagonally(matrices: list[Tensor]) -> Tensor:
    whole: Tensor = torch.block_diag(*matrices)  # type: ignore[no-untyped-call]
    return whole


def save_peft(
    folder: Path, component: str, tensors: Mapping[str, Tensor], options: Mapping[str, object]
) -> None:
    """Write a folder of PEFT with an adapter of one component."""
    named = {
        name.replace(f"{component}.", "base_model.model.", 1): each
        for name, each in tensors.items()
    }
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **options}))
