"""Autoencoder: pictures to latents an eighth as wide and high, and back.

The encoder is a fixed linear transform; only the decoder is trained. In learnt latents of the
same size, edges vary a tenth as much as colours, and the noise of the diffusion drowns them: a
denoiser trained on those learnt all colours and no shape.
"""

import random
from typing import Any

import torch
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import AutoencoderTinyBlock
from torch import Tensor, nn
from torch.nn import functional

from training.device import autocast, best_device
from training.scenes.render import render
from training.scenes.scene import draw_scene
from training.schedule import Schedule

# For each of red, green and blue: the mean of an 8x8 patch and its three Haar details.
LATENT_CHANNELS = 12
CHANNELS = 32
CROP_PX = 64
BATCH = 6
PEAK_RATE = 1.5e-3
# Denoised latents keep some noise; the decoder learns to tolerate this much.
LATENT_NOISE = 0.1
# Scales a channel of [0, 1] to about unit variance.
SPREAD = 3.3
# Details are zero except at edges; at twice the scale, they emerge from the noise with the colours.
DETAIL_SPREAD = 2 * SPREAD


def build_autoencoder() -> AutoencoderTiny:
    """Build an autoencoder with a final encoder and a decoder that draws colours without edges.

    The decoder has one block at full resolution, which keeps edges crisp. It starts by filling
    each patch with its mean colour; learning that from random weights would take most of the
    training.
    """
    model = AutoencoderTiny(
        encoder_block_out_channels=(LATENT_CHANNELS,) * 4,
        decoder_block_out_channels=(CHANNELS,) * 4,
        num_encoder_blocks=(0, 0, 0, 0),
        num_decoder_blocks=(3, 2, 1, 1),
        latent_channels=LATENT_CHANNELS,
    )
    with torch.no_grad():
        _set_encoder(model.encoder)
        _pass_colours(model.decoder)
    model.encoder.requires_grad_(False)
    return model


def _set_encoder(encoder: Any) -> None:
    """Set the encoder to average 4x4 pixels and Haar-transform 2x2 averages, colour by colour."""
    unchanged, first_mean, second_mean, haar, to_latents = encoder.layers
    for layer in encoder.layers:
        layer.weight.zero_()
    # The last two rows and columns of a 3x3 kernel with stride 2 cover 2x2 pixels without overlap.
    left, upper = torch.tensor([[1.0, -1.0]] * 2), torch.tensor([[1.0] * 2, [-1.0] * 2])
    patterns = (torch.ones(2, 2), left, upper, left * upper)
    for colour in range(3):
        unchanged.weight[colour, colour, 1, 1] = 1
        first_mean.weight[colour, colour, 1:, 1:] = 0.25
        second_mean.weight[colour, colour, 1:, 1:] = 0.25
        for number, pattern in enumerate(patterns):
            channel = 3 * number + colour
            haar.weight[channel, colour, 1:, 1:] = 0.25 * pattern
            to_latents.weight[channel, channel, 1, 1] = DETAIL_SPREAD if number else SPREAD
    unchanged.bias.zero_()
    to_latents.bias.zero_()
    to_latents.bias[:3] = -SPREAD / 2


def _pass_colours(decoder: Any) -> None:
    """Set the decoder to pass its first three channels through; damp its blocks."""
    for layer in decoder.layers:
        if isinstance(layer, AutoencoderTinyBlock):
            layer.conv[-1].weight.mul_(0.1)
            layer.conv[-1].bias.zero_()
        elif isinstance(layer, nn.Conv2d):
            layer.weight[:3] = 0
            for channel in range(3):
                layer.weight[channel, channel, 1, 1] = 1
            if layer.bias is not None:
                layer.bias[:3].zero_()
    from_latents = decoder.layers[0]
    from_latents.weight[:3] /= SPREAD
    from_latents.bias[:3] = 0.5


def reconstruction_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Return the error of colours and edges between (batch, 3, height, width), in [-1, 1]."""
    loss = functional.l1_loss(picture, target) + 0.5 * functional.mse_loss(picture, target)
    for axis in (2, 3):
        loss = loss + functional.l1_loss(picture.diff(dim=axis), target.diff(dim=axis))
    return loss


def train_decoder(model: AutoencoderTiny, minutes: float, seed: int = 0) -> None:
    """Train the decoder for `minutes`."""
    torch.manual_seed(seed)
    _fit(model, _Pictures(count=6000, seed=seed), minutes, PEAK_RATE)


def _fit(model: AutoencoderTiny, pictures: "_Pictures", minutes: float, peak_rate: float) -> None:
    """Train the weights that require gradients; leave the model on the CPU."""
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
        loss = reconstruction_loss(decoded.float(), target)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 100 == 0:
            print(f"{schedule.spent_s / 60:5.1f} min  step {step}  loss {loss:.4f}", flush=True)
    model.cpu().eval()


class _Pictures:
    """Rendered scenes in memory, to take crops from."""

    def __init__(self, count: int, seed: int) -> None:
        self._rng = random.Random(seed)
        chunks = []
        for _ in range(count // 500):
            scenes = [draw_scene(self._rng, 128, 128) for _ in range(500)]
            chunks.append(((render(scenes) + 1) * 127.5).round().byte())
        self._pictures = torch.cat(chunks)

    def crops(self, count: int) -> Tensor:
        """Return random crops: (count, 3, CROP_PX, CROP_PX), in [-1, 1]."""
        crops = []
        for _ in range(count):
            picture = self._pictures[self._rng.randrange(len(self._pictures))]
            # Clamping makes crops at the border of the picture frequent.
            top, left = (min(max(self._rng.randint(-24, 88), 0), 64) for _ in range(2))
            crops.append(picture[:, top : top + CROP_PX, left : left + CROP_PX])
        batch = torch.stack(crops).float() / 127.5 - 1
        return batch.contiguous(memory_format=torch.channels_last)
