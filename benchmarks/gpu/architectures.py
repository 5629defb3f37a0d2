"""Architectures of well-known models with random weights, which run as fast as trained ones.

Sizes are those of the published configurations. Small text encoders replace those of billions
of parameters: only the shape of their output affects the denoiser's speed. `shrink` keeps the
layout and divides the widths, for a run on a CPU.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PNDMScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from support.pipelines import tokenizers

_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}


def make_sd15(shrink: int) -> DiffusionPipeline:
    """Build Stable Diffusion 1.5."""
    tokenizer = tokenizers.make_clip_tokenizer()
    return StableDiffusionPipeline(
        vae=_make_vae(shrink, 4, scaling_factor=0.18215),
        text_encoder=CLIPTextModel(_clip(tokenizer, 768 // shrink, 12 // shrink)),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=64,
            block_out_channels=tuple(width // shrink for width in (320, 640, 1280, 1280)),
            cross_attention_dim=768 // shrink,
            attention_head_dim=8,
            norm_num_groups=32 // shrink,
        ),
        scheduler=_make_scheduler(PNDMScheduler, skip_prk_steps=True, **_NOISE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def make_sdxl(shrink: int) -> DiffusionPipeline:
    """Build Stable Diffusion XL."""
    tokenizer, tokenizer_2 = (tokenizers.make_clip_tokenizer() for _ in range(2))
    first, second = 768 // shrink, 1280 // shrink
    return StableDiffusionXLPipeline(
        vae=_make_vae(shrink, 4, scaling_factor=0.13025, force_upcast=False),
        text_encoder=CLIPTextModel(_clip(tokenizer, first, 12 // shrink)),
        text_encoder_2=CLIPTextModelWithProjection(_clip(tokenizer_2, second, 32 // shrink)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=UNet2DConditionModel(
            sample_size=128,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=tuple(width // shrink for width in (320, 640, 1280)),
            transformer_layers_per_block=(1, 2, 10 if shrink == 1 else 2),
            attention_head_dim=(5, 10, 20),
            cross_attention_dim=first + second,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=second + 6 * 256,
            norm_num_groups=32 // shrink,
        ),
        scheduler=_make_scheduler(EulerDiscreteScheduler, timestep_spacing="leading", **_NOISE),
        add_watermarker=False,
    )


def make_sd3(shrink: int) -> DiffusionPipeline:
    """Build Stable Diffusion 3 medium, with a T5 encoder of two layers."""
    tokenizer, tokenizer_2 = (tokenizers.make_clip_tokenizer() for _ in range(2))
    tokenizer_3 = tokenizers.make_t5_tokenizer()
    first, second, third = 768 // shrink, 1280 // shrink, 4096 // shrink
    return StableDiffusion3Pipeline(
        vae=_make_vae(shrink, 16, **_SHIFTED),
        text_encoder=CLIPTextModelWithProjection(_clip(tokenizer, first, 12 // shrink)),
        text_encoder_2=CLIPTextModelWithProjection(_clip(tokenizer_2, second, 32 // shrink)),
        text_encoder_3=_make_t5(tokenizer_3, third),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
        transformer=SD3Transformer2DModel(
            sample_size=128,
            num_layers=24 // shrink,
            attention_head_dim=64,
            num_attention_heads=24 // shrink,
            joint_attention_dim=third,
            caption_projection_dim=1536 // shrink,
            pooled_projection_dim=first + second,
            pos_embed_max_size=192,
        ),
        scheduler=_make_scheduler(FlowMatchEulerDiscreteScheduler, shift=3.0),
    )


def make_flux(shrink: int) -> DiffusionPipeline:
    """Build FLUX.1-dev, with a T5 encoder of two layers."""
    tokenizer, tokenizer_2 = tokenizers.make_clip_tokenizer(), tokenizers.make_t5_tokenizer()
    width = 4096 // shrink
    return FluxPipeline(
        vae=_make_vae(shrink, 16, **_SHIFTED),
        text_encoder=CLIPTextModel(_clip(tokenizer, 768 // shrink, 12 // shrink)),
        text_encoder_2=_make_t5(tokenizer_2, width),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        transformer=FluxTransformer2DModel(
            num_layers=max(1, 19 // shrink**2),
            num_single_layers=max(1, 38 // shrink**2),
            num_attention_heads=24 // shrink,
            joint_attention_dim=width,
            pooled_projection_dim=768 // shrink,
            guidance_embeds=True,
        ),
        scheduler=_make_scheduler(
            FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=True
        ),
    )


ARCHITECTURES: dict[str, Callable[[int], DiffusionPipeline]] = {
    "sd15": make_sd15,
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "flux-dev": make_flux,
}


def make_pipeline(name: str, device: torch.device, *, shrunk: bool) -> DiffusionPipeline:
    """Build a pipeline on a device as `from_pretrained` does: bfloat16 on a GPU, else float32."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            pipeline: Any = ARCHITECTURES[name](4 if shrunk else 1)
    finally:
        torch.set_default_dtype(default)
    for component in pipeline.components.values():
        if isinstance(component, torch.nn.Module):
            component.eval()  # turns off T5's dropout
    return pipeline


_SHIFTED = {
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def _make_scheduler(scheduler_class: Callable[..., Any], **config: Any) -> Any:
    """Make a scheduler on the CPU, as `from_pretrained` does: numpy reads its tensors."""
    with torch.device("cpu"):
        return scheduler_class(**config)


def _make_vae(shrink: int, latent_channels: int, **config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=tuple(width // shrink for width in (128, 256, 512, 512)),
        layers_per_block=2,
        norm_num_groups=32 // shrink,
        latent_channels=latent_channels,
        sample_size=1024,
        **config,
    )


def _clip(tokenizer: Any, width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64 or 1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _make_t5(tokenizer: Any, width: int) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_ff=width, num_layers=2)
    )
