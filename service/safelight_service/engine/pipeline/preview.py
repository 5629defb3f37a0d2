"""LatentColours: previews of unfinished latents by a linear map to colours.

Decoding latents with the VAE costs as much as several denoising steps. A linear map from each
latent cell to its mean colour is almost free, and shows composition and colours. A least-squares
fit on the model's own VAE finds the map, once for each model.
"""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch.nn.functional import interpolate

_SAMPLE_COUNT = 16
_CELLS = 8
"""Side of the sample pictures, in latent cells; each colour covers 2 x 2 cells."""

_DAMPING = 1e-4
"""Ridge damping of the fit, as a share of the channels' mean variance."""


@dataclass(frozen=True, slots=True)
class LatentColours:
    """Linear map from latents to colours; `weight` (channels + 1, 3) ends with the offset."""

    weight: torch.Tensor

    @classmethod
    def fit(cls, pipeline: Any) -> Self | None:
        """Fit the map on random colour fields.

        None for VAEs of an unknown kind, and for encoders that answer all colours alike or with
        values that are not finite.
        """
        vae = pipeline.vae
        if getattr(vae, "encoder", None) is None:
            return None
        generator = torch.Generator("cpu").manual_seed(0)
        colours = torch.rand(_SAMPLE_COUNT, 3, _CELLS // 2, _CELLS // 2, generator=generator)
        cells = interpolate(colours * 2 - 1, scale_factor=2)
        pixels = interpolate(cells, scale_factor=int(pipeline.vae_scale_factor))
        latents = _encode(vae, pixels.to(vae.device, vae.dtype)).float().cpu()
        if latents.shape[-2:] != cells.shape[-2:]:
            return None
        inputs = latents.movedim(1, -1).flatten(0, -2)
        targets = cells.movedim(1, -1).flatten(0, -2)
        mean = inputs.mean(dim=0)
        spread = (inputs - mean).T @ (inputs - mean)
        if not (spread.isfinite().all() and spread.any()):  # the encoder tells no colours apart
            return None
        # Some channels do not depend on colour, so the normal equations need a little damping.
        damping = _DAMPING * spread.diagonal().mean() * torch.eye(len(spread))
        slope = torch.linalg.solve(spread + damping, (inputs - mean).T @ targets)
        offset = targets.mean(dim=0) - mean @ slope
        return cls(torch.cat([slope, offset.unsqueeze(0)]).to(vae.device))

    def draw(self, latents: torch.Tensor) -> torch.Tensor | None:
        """Map latents (1, channels, height, width) to colours (3, height, width) in [0, 1].

        The result has one pixel for each cell, on the latents' device. Returns None if the latents
        differ in layout from those of the fit.
        """
        if latents.ndim != 4 or latents.shape[1] != len(self.weight) - 1:
            return None
        weight = self.weight.to(latents.device)
        colours = latents[0].movedim(0, -1).float() @ weight[:-1] + weight[-1]
        return ((colours + 1) / 2).clamp(0, 1).movedim(-1, 0)


def unpack(pipeline: Any, latents: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Convert a pipeline's latents to cells (1, channels, height, width).

    FLUX and its relatives denoise a sequence of 2 x 2 patches. FLUX.2 also normalises them by
    channel, and Qwen-Image adds a time axis of one frame.
    """
    if hasattr(pipeline, "_unpatchify_latents"):
        return _unpack_normalised(pipeline, latents, width, height)
    if latents.ndim == 3 and hasattr(pipeline, "_unpack_latents"):
        latents = pipeline._unpack_latents(latents, height, width, pipeline.vae_scale_factor)
    return latents.squeeze(2) if latents.ndim == 5 else latents


def _unpack_normalised(
    pipeline: Any, latents: torch.Tensor, width: int, height: int
) -> torch.Tensor:
    side = 2 * pipeline.vae_scale_factor
    statistics = pipeline.vae.bn
    spread = (statistics.running_var + pipeline.vae.config.batch_norm_eps).sqrt()
    patches = (latents * spread + statistics.running_mean).movedim(1, -1)
    cells: torch.Tensor = pipeline._unpatchify_latents(
        patches.unflatten(-1, (height // side, width // side))
    )
    return cells


@torch.no_grad()
def _encode(vae: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Encode pixels (batch, 3, height, width) in [-1, 1] to latents, scaled as for the denoiser."""
    is_video = hasattr(vae, "temperal_downsample")
    encoded = vae.encode(pixels.unsqueeze(2) if is_video else pixels)
    latents: torch.Tensor
    if hasattr(encoded, "latent_dist"):
        latents = encoded.latent_dist.mode()
    else:
        latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent
    latents = latents.squeeze(2) if is_video else latents
    config = vae.config
    scale: float = config.get("scaling_factor") or 1.0
    shift: float = config.get("shift_factor") or 0.0
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        mean = torch.tensor(config["latents_mean"]).view(1, -1, 1, 1).to(latents)
        std = torch.tensor(config["latents_std"]).view(1, -1, 1, 1).to(latents)
        return (latents - mean) * scale / std
    return (latents - shift) * scale
