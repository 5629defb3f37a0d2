"""Adapters: trains the small LoRAs that ship with the embedded model.

An adapter learns from the same scenes and captions as the model, with pictures in its own style.
"""

import argparse
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear, max_pool2d

from training.device import best_device
from training.networks.denoiser import make_samples, velocity_loss
from training.networks.scheduler import build_scheduler
from training.networks.text_encoder import tokenize
from training.parts import Parts
from training.scenes.captions import caption
from training.schedule import Schedule

RANK = 8

SAVED_RANK = 7
"""Rank of the files: all weights of the embedded model together have 15 MB at most."""
PEAK_RATE = 2e-3
SIDES = (64, 128)
BATCH = {64: 32, 128: 8}
SCENE_COUNT = {64: 1200, 128: 300}
_CHOSEN = ("to_q", "to_k", "to_v", "to_out.0", "time_emb_proj", "conv_out")
"""Ends of the names of the changed layers, besides the convolutions next to the output."""
_LAST_CONVOLUTIONS = "up_blocks.2.resnets"


def soften(pictures: Tensor) -> Tensor:
    """Mix pictures (count, 3, height, width) in [-1, 1] with white."""
    return 0.45 * pictures + 0.55


def outline(pictures: Tensor) -> Tensor:
    """Draw dark lines at the edges of pictures (count, 3, height, width) in [-1, 1]."""
    brightest = max_pool2d(pictures, 3, 1, 1)
    darkest = -max_pool2d(-pictures, 3, 1, 1)
    edges = ((brightest - darkest).amax(1, keepdim=True) * 1.5 - 0.3).clamp(0, 1)
    return (pictures + 1) * (1 - max_pool2d(edges, 3, 1, 1)) - 1


STYLES: Mapping[str, Callable[[Tensor], Tensor]] = {"pastel": soften, "outline": outline}


def truncate(down: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """Return the factors of SAVED_RANK whose product is nearest to that of a layer's factors.

    Args:
        down: (rank, in, ...)
        up: (out, rank, ...)
    """
    left, sizes, right = torch.linalg.svd(up.flatten(1).float() @ down.flatten(1).float())
    roots = sizes[:SAVED_RANK].sqrt()
    saved_down = roots[:, None] * right[:SAVED_RANK]
    saved_up = left[:, :SAVED_RANK] * roots
    return (
        saved_down.view(-1, *down.shape[1:]),
        saved_up.view(len(up), -1, *up.shape[2:]),
    )


class Adapter:
    """Trainable factors of chosen layers, which hooks add to their outputs."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.factors: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for name, layer in denoiser.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and _is_chosen(name):
                weight = layer.weight
                down = torch.randn(RANK, *weight.shape[1:]) / weight[0].numel() ** 0.5
                up = torch.zeros(len(weight), RANK, *([1] * (weight.ndim - 2)))
                pair = nn.Parameter(down.to(weight.device)), nn.Parameter(up.to(weight.device))
                self.factors[name] = pair
                layer.register_forward_hook(_adding(*pair))

    def parameters(self) -> list[nn.Parameter]:
        """Return all factors."""
        return [factor for pair in self.factors.values() for factor in pair]

    def save(self, file: Path) -> None:
        """Write the factors of SAVED_RANK in half precision, named as diffusers does."""
        file.parent.mkdir(parents=True, exist_ok=True)
        tensors = {}
        for name, (down, up) in self.factors.items():
            saved_down, saved_up = truncate(down.detach().cpu(), up.detach().cpu())
            tensors[f"unet.{name}.lora_A.weight"] = saved_down.half()
            tensors[f"unet.{name}.lora_B.weight"] = saved_up.half()
        save_file(tensors, file)
        file.chmod(0o644)


def _is_chosen(name: str) -> bool:
    is_last = name.startswith(_LAST_CONVOLUTIONS) and name.endswith(("conv1", "conv2"))
    return name.endswith(_CHOSEN) or is_last


def _adding(down: Tensor, up: Tensor) -> Callable[[Any, tuple[Tensor], Tensor], Tensor]:
    def add(layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        if down.ndim == 2:
            return output + linear(linear(inputs[0], down), up)
        return output + conv2d(conv2d(inputs[0], down, padding=layer.padding), up)

    return add


def train(style: str, start: Path, minutes: float, seed: int = 5) -> Adapter:
    """Train the adapter of a style for the model in the folder `start`."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    parts = Parts(Path("build/training-of-adapters"), start)
    tokenizer, autoencoder = parts.tokenizer(), parts.autoencoder()
    model = parts.training().model.eval().requires_grad_(False)
    denoiser = model["denoiser"]
    assert isinstance(denoiser, UNet2DConditionModel)
    adapter = Adapter(denoiser)
    autoencoder.to(best_device())
    samples = {
        side: make_samples(autoencoder, side, side, SCENE_COUNT[side], rng, STYLES[style])
        for side in SIDES
    }
    optimizer = torch.optim.AdamW(adapter.parameters(), PEAK_RATE, betas=(0.9, 0.99))
    alphas = build_scheduler().alphas_cumprod.to(best_device())
    recent = 0.0
    for step in Schedule(optimizer, PEAK_RATE, minutes).steps():
        side = rng.choice(SIDES)
        pool = samples[side]
        chosen = [rng.randrange(len(pool.scenes)) for _ in range(BATCH[side])]
        tokens = tokenize(tokenizer, [caption(pool.scenes[each], rng).text for each in chosen])
        loss = velocity_loss(
            model,
            pool.latents[chosen].to(best_device()),
            pool.weights[chosen].to(best_device()),
            tokens.to(best_device()),
            alphas,
        )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        recent = loss.item() if step == 0 else 0.98 * recent + 0.02 * loss.item()
        if step % 50 == 0:
            print(f"{style}: step {step}, loss {recent:.4f}", flush=True)
    return adapter


def main() -> None:
    """Train the adapters of all styles, one after another."""
    shapes = Path("service/safelight_service/models/shapes")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--start", type=Path, default=shapes, help="model folder")
    parser.add_argument("--minutes", type=float, default=8.0, help="length of each training")
    parser.add_argument(
        "--styles", nargs="+", choices=STYLES, default=list(STYLES), help="styles to train"
    )
    arguments = parser.parse_args()
    for style in arguments.styles:
        adapter = train(style, arguments.start, arguments.minutes)
        adapter.save(arguments.start / "adapters" / f"{style}.safetensors")


if __name__ == "__main__":
    main()
