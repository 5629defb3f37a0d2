"""Denoiser: from noise to latents, guided by a caption."""

import copy
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, PreTrainedTokenizerFast

from training.device import autocast, best_device
from training.networks.autoencoder import LATENT_CHANNELS
from training.networks.reading import Reader
from training.networks.scheduler import build_scheduler
from training.networks.text_encoder import POOLED_WIDTH, POOLING_HEADS, WIDTH, tokenize
from training.scenes.captions import caption
from training.scenes.render import mask, render
from training.scenes.scene import Scene, draw_scene
from training.schedule import Schedule

PEAK_RATE = 1.2e-3
# Pictures of 128x128 per step, and scenes to choose from. Enough for two CPU cores; a GPU does
# better with ten times as many of both.
BATCH = 32
SCENE_COUNT = 12_000
AVERAGING = 0.998
# Things cover a tenth of a picture but hold most of the content to learn.
THING_WEIGHT = 6.0
# The noisiest steps decide the shape of a thing, which is the hardest to learn. Few samples of a
# batch are below this timestep, where little is left to decide.
LATE_TIMESTEP, LATE_SHARE = 550, 0.25
CHECKPOINT_S = 180

# Half of the scenes have two things, which is harder: each thing has its own colour and place. The
# denoiser alone teaches the text encoder too little of that. So each step also trains a Reader
# on this many captions of scenes without pictures.
PAIR_SHARE = 0.5
READ_CAPTIONS = 96
READING_WEIGHT = 0.02

# Width and height in pixels, and the share of steps with that size. Small pictures teach shapes as
# well as large ones, with four times as many in a step.
SIZES: dict[tuple[int, int], float] = {
    (64, 64): 0.34,
    (96, 96): 0.2,
    (128, 128): 0.22,
    (128, 96): 0.03,
    (96, 128): 0.03,
    (160, 128): 0.02,
    (128, 160): 0.02,
    (160, 96): 0.02,
    (96, 160): 0.02,
    (192, 128): 0.015,
    (128, 192): 0.015,
    (192, 192): 0.02,
    (256, 96): 0.01,
    (96, 256): 0.01,
    (256, 128): 0.01,
    (128, 256): 0.01,
    (256, 256): 0.01,
}
SIDES = sorted({max(size) for size in SIZES})


def build_denoiser() -> UNet2DConditionModel:
    """Build an untrained denoiser.

    The pooled caption is added to the timestep embedding, which scales and shifts every block:
    this teaches colours and background. Attention to the words decides positions; only the lower
    levels have it, where it is cheap.
    """
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 128, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        # The number of heads, despite its name.
        attention_head_dim=4,
        cross_attention_dim=WIDTH,
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        time_embedding_dim=POOLED_WIDTH,
        addition_embed_type="text",
        addition_embed_type_num_heads=POOLING_HEADS,
    )


@dataclass
class Samples:
    """Scenes of one size with their scaled latents: (count, channels, height, width), float32.

    `weights` are the loss weights of the latent pixels: (count, 1, height, width), at least 1.
    """

    scenes: list[Scene]
    latents: Tensor
    weights: Tensor


def make_samples(
    autoencoder: AutoencoderTiny,
    width: int,
    height: int,
    count: int,
    rng: random.Random,
    change: Callable[[Tensor], Tensor] = lambda pictures: pictures,
) -> Samples:
    """Draw, render, change and encode scenes of one size."""
    scenes = [draw_scene(rng, width, height, PAIR_SHARE) for _ in range(count)]
    latents = []
    with torch.no_grad():
        for start in range(0, count, 16):
            picture = change(render(scenes[start : start + 16])).to(autoencoder.device)
            scaled = autoencoder.encoder(picture) * autoencoder.config.scaling_factor
            latents.append(scaled.cpu())
    return Samples(scenes, torch.cat(latents), weigh(scenes))


def weigh(scenes: list[Scene]) -> Tensor:
    """Return weights of latent pixels: THING_WEIGHT at things, 1 elsewhere.

    The scenes have one size; the weights are (count, 1, height, width).
    """
    width, height = scenes[0].width // 8, scenes[0].height // 8
    weights = torch.ones(len(scenes), 1, height, width)
    for number, scene in enumerate(scenes):
        for thing in scene.things:
            near = mask(
                "circle", thing.centre_x / 8, thing.centre_y / 8, thing.radius / 6, width, height
            )
            weights[number] = torch.maximum(weights[number], 1 + (THING_WEIGHT - 1) * near)
    return weights


class Training:
    """Denoiser and text encoder in training, which a checkpoint saves and a later run resumes."""

    def __init__(self, text_encoder: CLIPTextModel, denoiser: UNet2DConditionModel) -> None:
        self.device = best_device()
        denoiser.to(memory_format=torch.channels_last)
        self.model = nn.ModuleDict(
            {"text_encoder": text_encoder, "denoiser": denoiser, "reader": Reader(POOLED_WIDTH)}
        )
        self.model.to(self.device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
        )
        self.step = 0
        self.spent_s = 0.0

    def save(self, path: Path) -> None:
        """Write a checkpoint; an interrupted write leaves the last one intact."""
        aside = path.with_suffix(".partial")
        torch.save(
            {
                "model": self.model.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "spent_s": self.spent_s,
            },
            aside,
        )
        aside.rename(path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state: dict[str, Any] = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.spent_s = state["step"], state["spent_s"]

    def update_average(self) -> None:
        """Move the average towards the weights, faster at first."""
        share = 1 - min(AVERAGING, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.model.parameters()), share
            )


def draw_timesteps(batch: int, count: int) -> Tensor:
    """Draw timesteps below `count`, one from each part of their distribution: (batch,), int64."""
    shares = (torch.arange(batch) + torch.rand(batch)) / batch
    late = shares / LATE_SHARE * LATE_TIMESTEP
    early = LATE_TIMESTEP + (shares - LATE_SHARE) / (1 - LATE_SHARE) * (count - LATE_TIMESTEP)
    return torch.where(shares < LATE_SHARE, late, early).long().clamp(max=count - 1)


def velocity_loss(
    model: nn.ModuleDict, latents: Tensor, weights: Tensor, tokens: Tensor, alphas: Tensor
) -> Tensor:
    """Return the weighted error of the velocity predicted from tokens and noisy latents.

    The velocity is that of Salimans and Ho, "Progressive Distillation for Fast Sampling of
    Diffusion Models" (2022), appendix D. `alphas` are the cumulative ones: (timesteps,).
    """
    timesteps = draw_timesteps(len(latents), len(alphas)).to(latents.device)
    alpha = alphas[timesteps].view(-1, 1, 1, 1)
    signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
    noise = torch.randn_like(latents)
    noisy = signal * latents + sigma * noise
    target = signal * noise - sigma * latents
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    with autocast(latents.device):
        words = model["text_encoder"](tokens).last_hidden_state
        predicted = model["denoiser"](noisy, timesteps, words, return_dict=False)[0]
    error: Tensor = (predicted.float() - target).pow(2)
    return (error * weights).mean() / weights.mean()


def reading_loss(
    model: nn.ModuleDict,
    tokenizer: PreTrainedTokenizerFast,
    device: torch.device,
    rng: random.Random,
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of a Reader on new captions, and the share it reads right by field."""
    captions = [caption(draw_scene(rng, 128, 128, PAIR_SHARE), rng) for _ in range(READ_CAPTIONS)]
    tokens = tokenize(tokenizer, [item.text for item in captions]).to(device)
    pooling: Any = model["denoiser"].add_embedding
    pooled = pooling(model["text_encoder"](tokens).last_hidden_state)
    loss, right = model["reader"](pooled, captions)
    return loss, right


def train_denoiser(
    run: Training,
    tokenizer: PreTrainedTokenizerFast,
    autoencoder: AutoencoderTiny,
    minutes: float,
    checkpoint: Path,
    peak_rate: float = PEAK_RATE,
    batch: int = BATCH,
    scene_count: int = SCENE_COUNT,
    largest_side: int = max(SIDES),
    seed: int = 3,
) -> None:
    """Train for `minutes` in all, including earlier runs, and write checkpoints.

    `largest_side`, one of SIDES, leaves out larger SIZES. A step has more pictures the smaller
    they are.
    """
    # A resumed run gets new scenes, captions and noise.
    torch.manual_seed(seed + run.step)
    rng = random.Random(seed + run.step)
    autoencoder.to(run.device)
    samples = {}
    shares = {size: share for size, share in SIZES.items() if max(size) <= largest_side}
    for (width, height), share in shares.items():
        # Steps with small pictures have more of them.
        count = math.ceil(scene_count * share * 128 * 128 / (width * height))
        samples[width, height] = make_samples(autoencoder, width, height, count, rng)
    print(f"{sum(len(s.scenes) for s in samples.values())} scenes", flush=True)
    alphas = build_scheduler().alphas_cumprod.to(run.device)
    schedule = Schedule(run.optimizer, peak_rate, minutes, run.spent_s)
    last_saved_s, recent = run.spent_s, 0.0
    for _ in schedule.steps():
        width, height = rng.choices(tuple(shares), tuple(shares.values()))[0]
        pool = samples[width, height]
        count = max(1, batch * 128 * 128 // (width * height))
        chosen = [rng.randrange(len(pool.scenes)) for _ in range(count)]
        texts = [caption(pool.scenes[i], rng).text for i in chosen]
        loss = velocity_loss(
            run.model,
            pool.latents[chosen].to(run.device),
            pool.weights[chosen].to(run.device),
            tokenize(tokenizer, texts).to(run.device),
            alphas,
        )
        unread, right = reading_loss(run.model, tokenizer, run.device, rng)
        run.optimizer.zero_grad()
        (loss + READING_WEIGHT * unread).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), 1.0)
        run.optimizer.step()
        run.step += 1
        run.update_average()
        run.spent_s = schedule.spent_s
        error = loss.item()
        recent = error if recent == 0 else 0.98 * recent + 0.02 * error
        if run.step % 50 == 0:
            print(
                f"{run.spent_s / 60:5.1f} min  step {run.step}  loss {recent:.4f}  "
                f"read: colour {right['colour']:.2f}, shape {right['shape']:.2f}, "
                f"second colour {right['second_colour']:.2f}",
                flush=True,
            )
        if run.spent_s - last_saved_s > CHECKPOINT_S:
            run.save(checkpoint)
            last_saved_s = run.spent_s
    run.save(checkpoint)
