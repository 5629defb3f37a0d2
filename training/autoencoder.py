"""The autoencoder: pictures to latents an eighth as wide and high, and back."""

import random

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn import functional

from training.device import autocast, best_device
from training.render import render
from training.scenes import draw_scene
from training.schedule import Schedule

LATENT_CHANNELS = 6
CHANNELS = 32
CROP_PX = 64
BATCH = 6
PEAK_RATE = 1.5e-3
# What the denoiser leaves behind is never quite clean; the decoder learns to bear this much.
LATENT_NOISE = 0.1
# Latents by colour, at first: a channel from 0 to 1 becomes one this wide.
SPREAD = 3.3


def build_autoencoder() -> AutoencoderTiny:
    """An autoencoder that knows colours and no edges yet.

    The encoder has next to nothing at full resolution, where flat shapes need little;
    the decoder has one block there, which keeps edges crisp. The first three latent channels
    begin as the mean red, green and blue of an 8x8 patch, which the decoder spreads over it;
    learning that from random weights would take most of the training.
    """
    model = AutoencoderTiny(
        encoder_block_out_channels=(CHANNELS,) * 4,
        decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=(0, 0, 1, 2),
        num_decoder_blocks=(3, 2, 1, 1),
        latent_channels=LATENT_CHANNELS,
    )
    with torch.no_grad():
        for part in (model.encoder, model.decoder):
            for layer in part.layers:
                if isinstance(layer, AutoencoderTinyBlock):
                    layer.conv[-1].weight.mul_(0.1)
                    layer.conv[-1].bias.zero_()
        _pass_colours(model)
    return model


def _pass_colours(model: AutoencoderTiny) -> None:
    """Make the convolutions hand the first three channels through, halving by averaging."""
    encoder = [layer for layer in model.encoder.layers if isinstance(layer, nn.Conv2d)]
    decoder = [layer for layer in model.decoder.layers if isinstance(layer, nn.Conv2d)]
    for layer in (*encoder, *decoder):
        layer.weight[:3] = 0
        for channel in range(3):
            if layer.stride == (2, 2):
                layer.weight[channel, channel, 1:, 1:] = 0.25
            else:
                layer.weight[channel, channel, 1, 1] = 1
        if layer.bias is not None:
            layer.bias[:3].zero_()
    # Between colours in [0, 1] and latents of about unit variance around zero.
    to_latents, from_latents = encoder[-1], decoder[0]
    assert to_latents.bias is not None
    assert from_latents.bias is not None
    to_latents.weight[:3] *= SPREAD
    to_latents.bias[:3] = -SPREAD / 2
    from_latents.weight[:3] /= SPREAD
    from_latents.bias[:3] = 0.5


def reconstruction_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Error of colours and of edges between pictures (batch, 3, height, width) in [-1, 1]."""
    loss = functional.l1_loss(picture, target) + 0.5 * functional.mse_loss(picture, target)
    for axis in (2, 3):
        loss = loss + functional.l1_loss(picture.diff(dim=axis), target.diff(dim=axis))
    return loss


def train_autoencoder(minutes: float, seed: int = 0) -> AutoencoderTiny:
    """Train from nothing for so many minutes, and set the scaling of the latents."""
    torch.manual_seed(seed)
    model = build_autoencoder()
    pictures = _Pictures(count=6000, seed=seed)
    _fit(model, pictures, minutes, PEAK_RATE)
    with torch.no_grad():
        latents = model.encoder(pictures.crops(400))
    model.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return model


def tune_decoder(model: AutoencoderTiny, minutes: float, seed: int = 1) -> None:
    """Train the decoder alone for some more minutes; the latents stay what they were."""
    torch.manual_seed(seed)
    model.encoder.requires_grad_(False)
    _fit(model, _Pictures(count=6000, seed=seed), minutes, PEAK_RATE / 2)
    model.encoder.requires_grad_(True)


def _fit(model: AutoencoderTiny, pictures: "_Pictures", minutes: float, peak_rate: float) -> None:
    """Train what requires gradients; leaves the model on the processor."""
    device = best_device()
    model.to(device, memory_format=torch.channels_last).train()
    parameters = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(parameters, peak_rate, weight_decay=1e-4)
    schedule = Schedule(optimizer, peak_rate, minutes)
    for step in schedule.steps():
        target = pictures.crops(BATCH).to(device)
        with autocast(device):
            latents = model.encoder(target)
            decoded = model.decoder(latents + LATENT_NOISE * torch.randn_like(latents))
        # Keeps every channel near zero mean and unit variance, as the diffusion assumes.
        mean, std = latents.float().mean((0, 2, 3)), latents.float().std((0, 2, 3))
        balance = (mean**2 + (std - 1) ** 2).mean()
        loss = reconstruction_loss(decoded.float(), target) + 0.05 * balance
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"{schedule.spent_s / 60:5.1f} min  step {step}  loss {loss:.4f}", flush=True)
    model.cpu().eval()


class _Pictures:
    """Rendered scenes in memory, from which crops are taken."""

    def __init__(self, count: int, seed: int) -> None:
        self._rng = random.Random(seed)
        chunks = []
        for _ in range(count // 500):
            scenes = [draw_scene(self._rng, 128, 128) for _ in range(500)]
            chunks.append(((render(scenes) + 1) * 127.5).round().byte())
        self._pictures = torch.cat(chunks)

    def crops(self, count: int) -> Tensor:
        """Random crops: (count, 3, CROP_PX, CROP_PX), in [-1, 1]."""
        crops = []
        for _ in range(count):
            picture = self._pictures[self._rng.randrange(len(self._pictures))]
            # Some cut from the corner, so that the border of a picture is seen as well.
            top, left = (min(max(self._rng.randint(-24, 88), 0), 64) for _ in range(2))
            crops.append(picture[:, top : top + CROP_PX, left : left + CROP_PX])
        batch = torch.stack(crops).float() / 127.5 - 1
        return batch.contiguous(memory_format=torch.channels_last)
