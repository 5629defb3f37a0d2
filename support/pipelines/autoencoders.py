"""Autoencoders with few channels and the downscale factors of the real ones."""

from typing import Any

from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderKLFlux2, AutoencoderKLQwenImage

_SIZES: dict[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (4, 4, 8, 8),
    "norm_num_groups": 2,
}


def make_autoencoder(latent_channels: int, **config: Any) -> AutoencoderKL:
    """Make the f8 autoencoder of most families."""
    return AutoencoderKL(latent_channels=latent_channels, **_SIZES, **config)


def make_shifted_autoencoder() -> AutoencoderKL:
    """Make the f8 autoencoder with 16 channels of FLUX and many others."""
    return make_autoencoder(
        16,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def make_normalising_autoencoder(latent_channels: int) -> AutoencoderKLFlux2:
    """Make FLUX.2's f8 autoencoder, which normalises its latents in patches."""
    return AutoencoderKLFlux2(latent_channels=latent_channels, **_SIZES)


def make_deep_autoencoder(latent_channels: int) -> AutoencoderDC:
    """Make Sana's f32 autoencoder."""
    channels = (4, 4, 8, 8, 16, 16)
    return AutoencoderDC(
        latent_channels=latent_channels,
        attention_head_dim=4,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        scaling_factor=0.41407,
    )


def make_video_autoencoder(latent_channels: int) -> AutoencoderKLQwenImage:
    """Make Qwen-Image's f8 autoencoder, which treats an image as a video of one frame."""
    return AutoencoderKLQwenImage(
        base_dim=4,
        z_dim=latent_channels,
        dim_mult=[1, 1, 2, 2],
        num_res_blocks=1,
        latents_mean=[0.1] * latent_channels,
        latents_std=[8.0] * latent_channels,
    )
