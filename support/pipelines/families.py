"""Families: a tiny pipeline of each, with the real classes; each runs in a second.

A family is one function in `FAMILIES`. Visible traits equal those of the real models: latent
layout, patch and downscale factors, schedulers, tokenizers.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AuraFlowPipeline,
    AuraFlowTransformer2DModel,
    ChromaPipeline,
    ChromaTransformer2DModel,
    CogView4Pipeline,
    CogView4Transformer2DModel,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxPipeline,
    FluxTransformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    LatentConsistencyModelPipeline,
    LCMScheduler,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    PNDMScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
    ZImagePipeline,
    ZImageTransformer2DModel,
)

from support.pipelines import autoencoders, encoders, tokenizers
from support.pipelines.encoders import TEXT_WIDTH

_SD_NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
_UNCHECKED: dict[str, Any] = {
    "safety_checker": None,
    "feature_extractor": None,
    "requires_safety_checker": False,
}


def make_sd15() -> DiffusionPipeline:
    """Make Stable Diffusion 1.5."""
    tokenizer = tokenizers.make_clip_tokenizer()
    return StableDiffusionPipeline(
        vae=autoencoders.make_autoencoder(4),
        text_encoder=encoders.make_clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_make_unet(),
        scheduler=PNDMScheduler(
            skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1, **_SD_NOISE
        ),
        **_UNCHECKED,
    )


def make_lcm() -> DiffusionPipeline:
    """Make a Latent Consistency Model, whose denoiser takes the guidance as an input."""
    tokenizer = tokenizers.make_clip_tokenizer()
    return LatentConsistencyModelPipeline(
        vae=autoencoders.make_autoencoder(4),
        text_encoder=encoders.make_clip_encoder(tokenizer),
        tokenizer=tokenizer,
        unet=_make_unet(time_cond_proj_dim=8),
        scheduler=LCMScheduler(**_SD_NOISE),
        **_UNCHECKED,
    )


def make_sdxl() -> DiffusionPipeline:
    """Make Stable Diffusion XL."""
    tokenizer, tokenizer_2 = (tokenizers.make_clip_tokenizer() for _ in range(2))
    return StableDiffusionXLPipeline(
        vae=autoencoders.make_autoencoder(4, scaling_factor=0.13025, force_upcast=False),
        text_encoder=encoders.make_clip_encoder(tokenizer),
        text_encoder_2=encoders.make_clip_projection_encoder(tokenizer_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=_make_unet(
            cross_attention_dim=2 * TEXT_WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=TEXT_WIDTH + 6 * 8,
        ),
        scheduler=EulerDiscreteScheduler(steps_offset=1, timestep_spacing="leading", **_SD_NOISE),
        add_watermarker=False,
    )


def make_sd3() -> DiffusionPipeline:
    """Make Stable Diffusion 3."""
    tokenizer, tokenizer_2 = (tokenizers.make_clip_tokenizer() for _ in range(2))
    tokenizer_3 = tokenizers.make_t5_tokenizer()
    return StableDiffusion3Pipeline(
        vae=autoencoders.make_shifted_autoencoder(),
        text_encoder=encoders.make_clip_projection_encoder(tokenizer),
        text_encoder_2=encoders.make_clip_projection_encoder(tokenizer_2),
        text_encoder_3=encoders.make_t5_encoder(tokenizer_3, 2 * TEXT_WIDTH),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        tokenizer_3=tokenizer_3,
        transformer=SD3Transformer2DModel(
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            caption_projection_dim=16,
            joint_attention_dim=2 * TEXT_WIDTH,
            pooled_projection_dim=2 * TEXT_WIDTH,
            pos_embed_max_size=96,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def make_flux_dev() -> DiffusionPipeline:
    """Make FLUX.1-dev, whose denoiser takes the guidance as an input."""
    return _make_flux(
        guidance_embeds=True,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def make_flux_schnell() -> DiffusionPipeline:
    """Make FLUX.1-schnell, which supports only classifier-free guidance."""
    return _make_flux(guidance_embeds=False, scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0))


def make_flux2_dev() -> DiffusionPipeline:
    """Make FLUX.2-dev: guidance is an input of the denoiser, and the tokenizer accepts images."""
    processor = tokenizers.make_mistral_processor()
    return Flux2Pipeline(
        vae=autoencoders.make_normalising_autoencoder(32),
        text_encoder=encoders.make_mistral3_encoder(processor.tokenizer),
        tokenizer=processor,
        transformer=_make_flux2_transformer(guidance_embeds=True),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def make_flux2_klein() -> DiffusionPipeline:
    """Make FLUX.2-klein, before its distillation."""
    tokenizer = tokenizers.make_qwen_tokenizer()
    return Flux2KleinPipeline(
        vae=autoencoders.make_normalising_autoencoder(32),
        text_encoder=encoders.make_deep_qwen3_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=_make_flux2_transformer(guidance_embeds=False),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        is_distilled=False,
    )


def make_chroma() -> DiffusionPipeline:
    """Make Chroma."""
    tokenizer = tokenizers.make_t5_tokenizer()
    return ChromaPipeline(
        vae=autoencoders.make_shifted_autoencoder(),
        text_encoder=encoders.make_t5_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=ChromaTransformer2DModel(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
            approximator_hidden_dim=32,
            approximator_layers=1,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0),
    )


def make_pixart_sigma() -> DiffusionPipeline:
    """Make PixArt-Sigma."""
    tokenizer = tokenizers.make_t5_tokenizer()
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_t5_encoder(tokenizer),
        vae=autoencoders.make_autoencoder(4, scaling_factor=0.13025),
        transformer=PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            norm_num_groups=2,
            cross_attention_dim=16,
            caption_channels=TEXT_WIDTH,
            use_additional_conditions=False,
        ),
        scheduler=DPMSolverMultistepScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear"
        ),
    )


def make_sana() -> DiffusionPipeline:
    """Make Sana."""
    tokenizer = tokenizers.make_gemma_tokenizer()
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_gemma_encoder(tokenizer),
        vae=autoencoders.make_deep_autoencoder(8),
        transformer=SanaTransformer2DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            num_cross_attention_heads=2,
            cross_attention_head_dim=8,
            cross_attention_dim=16,
            caption_channels=TEXT_WIDTH,
        ),
        scheduler=DPMSolverMultistepScheduler(
            flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True
        ),
    )


def make_lumina2() -> DiffusionPipeline:
    """Make Lumina-Image 2.0."""
    tokenizer = tokenizers.make_gemma_tokenizer()
    return Lumina2Pipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_gemma_encoder(tokenizer),
        vae=autoencoders.make_shifted_autoencoder(),
        transformer=Lumina2Transformer2DModel(
            hidden_size=32,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=16,
            cap_feat_dim=TEXT_WIDTH,
            axes_dim_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def make_aura_flow() -> DiffusionPipeline:
    """Make AuraFlow."""
    tokenizer = tokenizers.make_t5_tokenizer()
    transformer = AuraFlowTransformer2DModel(
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=16,
        pos_embed_max_size=96**2,
    )
    transformer.time_step_proj.linear_2.weight.data *= 30  # else its gates would hide the text
    return AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_umt5_encoder(tokenizer),
        vae=autoencoders.make_autoencoder(4, scaling_factor=0.13025),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def make_cogview4() -> DiffusionPipeline:
    """Make CogView4."""
    tokenizer = tokenizers.make_glm_tokenizer()
    return CogView4Pipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_glm_encoder(tokenizer),
        vae=autoencoders.make_autoencoder(16, scaling_factor=1.0),
        transformer=CogView4Transformer2DModel(
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            text_embed_dim=TEXT_WIDTH,
            time_embed_dim=16,
            condition_dim=8,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )


def make_hidream() -> DiffusionPipeline:
    """Make HiDream-I1."""
    tokenizer, tokenizer_2 = (tokenizers.make_clip_tokenizer(248) for _ in range(2))
    tokenizer_3, tokenizer_4 = tokenizers.make_t5_tokenizer(), tokenizers.make_llama_tokenizer()
    return HiDreamImagePipeline(
        scheduler=UniPCMultistepScheduler(
            flow_shift=3.0, prediction_type="flow_prediction", use_flow_sigmas=True
        ),
        vae=autoencoders.make_shifted_autoencoder(),
        text_encoder=encoders.make_clip_projection_encoder(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=encoders.make_clip_projection_encoder(tokenizer_2),
        tokenizer_2=tokenizer_2,
        text_encoder_3=encoders.make_t5_encoder(tokenizer_3),
        tokenizer_3=tokenizer_3,
        text_encoder_4=encoders.make_llama_encoder(tokenizer_4),
        tokenizer_4=tokenizer_4,
        transformer=HiDreamImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=1,
            caption_channels=[TEXT_WIDTH, TEXT_WIDTH],
            text_emb_dim=2 * TEXT_WIDTH,
            num_routed_experts=2,
            num_activated_experts=1,
            axes_dims_rope=(8, 4, 4),
            max_resolution=(32, 32),
            llama_layers=[0, 1],
        ),
    )


def make_hunyuan_dit() -> DiffusionPipeline:
    """Make Hunyuan-DiT."""
    tokenizer, tokenizer_2 = tokenizers.make_bert_tokenizer(), tokenizers.make_t5_tokenizer()
    return HunyuanDiTPipeline(
        vae=autoencoders.make_autoencoder(4, scaling_factor=0.13025),
        text_encoder=encoders.make_bert_encoder(tokenizer),
        tokenizer=tokenizer,
        transformer=HunyuanDiT2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            patch_size=2,
            sample_size=128,
            hidden_size=16,
            num_layers=4,  # the fewest with a skip connection
            cross_attention_dim=TEXT_WIDTH,
            cross_attention_dim_t5=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
        ),
        scheduler=DDPMScheduler(
            **{**_SD_NOISE, "beta_end": 0.03},
            prediction_type="v_prediction",
            clip_sample=False,
            steps_offset=1,
            timestep_spacing="leading",
        ),
        **_UNCHECKED,
        text_encoder_2=encoders.make_t5_encoder(tokenizer_2),
        tokenizer_2=tokenizer_2,
    )


def make_qwen_image() -> DiffusionPipeline:
    """Make Qwen-Image."""
    tokenizer = tokenizers.make_qwen_tokenizer()
    return QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_qwen_vl_encoder(tokenizer),
        vae=autoencoders.make_video_autoencoder(4),
        transformer=QwenImageTransformer2DModel(
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(
            base_shift=0.5,
            max_shift=0.9,
            base_image_seq_len=256,
            max_image_seq_len=8192,
            shift_terminal=0.02,
            use_dynamic_shifting=True,
        ),
    )


def make_z_image() -> DiffusionPipeline:
    """Make Z-Image."""
    tokenizer = tokenizers.make_qwen_tokenizer()
    return ZImagePipeline(
        tokenizer=tokenizer,
        text_encoder=encoders.make_qwen3_encoder(tokenizer),
        vae=autoencoders.make_shifted_autoencoder(),
        transformer=ZImageTransformer2DModel(
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=TEXT_WIDTH,
            axes_dims=[4, 6, 6],
            axes_lens=[1024, 512, 512],
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


FAMILIES: dict[str, Callable[[], DiffusionPipeline]] = {
    "sd15": make_sd15,
    "lcm": make_lcm,
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "flux-dev": make_flux_dev,
    "flux-schnell": make_flux_schnell,
    "flux2-dev": make_flux2_dev,
    "flux2-klein": make_flux2_klein,
    "chroma": make_chroma,
    "pixart-sigma": make_pixart_sigma,
    "sana": make_sana,
    "lumina2": make_lumina2,
    "aura-flow": make_aura_flow,
    "cogview4": make_cogview4,
    "hidream": make_hidream,
    "hunyuan-dit": make_hunyuan_dit,
    "qwen-image": make_qwen_image,
    "z-image": make_z_image,
}


def make_pipeline(family: str) -> DiffusionPipeline:
    """Make a family's pipeline, always with the same weights; keep the global random state."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipeline = FAMILIES[family]()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _make_unet(**config: Any) -> UNet2DConditionModel:
    sizes: dict[str, Any] = {"cross_attention_dim": TEXT_WIDTH, **config}
    return UNet2DConditionModel(
        sample_size=64,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=2,
        **sizes,
    )


def _make_flux(
    *, guidance_embeds: bool, scheduler: FlowMatchEulerDiscreteScheduler
) -> DiffusionPipeline:
    tokenizer, tokenizer_2 = tokenizers.make_clip_tokenizer(), tokenizers.make_t5_tokenizer()
    return FluxPipeline(
        vae=autoencoders.make_shifted_autoencoder(),
        text_encoder=encoders.make_clip_encoder(tokenizer),
        text_encoder_2=encoders.make_t5_encoder(tokenizer_2),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        transformer=FluxTransformer2DModel(
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TEXT_WIDTH,
            pooled_projection_dim=TEXT_WIDTH,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=scheduler,
    )


def _make_flux2_transformer(*, guidance_embeds: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=3 * TEXT_WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance_embeds,
    )
