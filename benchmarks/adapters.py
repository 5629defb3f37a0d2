"""Adapters: images per second of eight callers with one adapter, with eight, and one at a time.

Measures processor time of this process, so other work on the machine hardly counts.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks.harness.report import write_report
from safelight_service.engine.lora.conversion import convert
from safelight_service.engine.lora.lora import NO_ADAPTERS, Lora, Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model
from safelight_service.engine.operations import Forward
from safelight_service.settings import load_settings
from support.pipelines.loras import make_lora

CALLERS = 8
REPEATS = 15
CELLS = 16
"""Side of the latents; the images have 128 x 128 pixels."""


def main() -> None:
    """Measure, print and save."""
    torch.set_num_threads(1)
    model = load_model(load_settings().models[0])
    loras = [_make(model, seed) for seed in range(CALLERS)]
    mixtures = [Mixture(((lora, 1.0),)) for lora in loras]

    def run_one_by_one() -> None:
        for mixture in mixtures:
            _run(model, [mixture])

    cases: dict[str, Callable[[], None]] = {
        "without adapters": lambda: _run(model, [NO_ADAPTERS] * CALLERS),
        "one adapter": lambda: _run(model, mixtures[:1] * CALLERS),
        "eight adapters": lambda: _run(model, mixtures),
        "one adapter at a time": run_one_by_one,
    }
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(REPEATS + 1):
        for name, work in cases.items():
            began_at = time.process_time()
            work()
            seconds[name].append(time.process_time() - began_at)
    rates = {name: CALLERS / statistics.median(each[1:]) for name, each in seconds.items()}
    for name, rate in rates.items():
        print(f"{name:<24}{rate:>8.1f} guided steps per second of processor time")
    mixed = rates["eight adapters"]
    shares = {
        "eight_to_one_adapter": mixed / rates["one adapter"],
        "eight_to_one_at_a_time": mixed / rates["one adapter at a time"],
    }
    for name, share in shares.items():
        print(f"{name:<24}{share:>8.2f}")
    write_report("adapters", {**rates, **shares})


def _make(model: LoadedModel, seed: int) -> Lora:
    """Make a random adapter of the attention, of rank 8."""
    pipeline = model.adapter.pipeline
    tensors = make_lora(pipeline, seed, rank=8, is_chosen=lambda name: ".attn" in name)
    return Lora(str(seed), str(seed), convert(tensors, {}, pipeline, torch.device("cpu")))


def _run(model: LoadedModel, mixtures: Sequence[Mixture]) -> None:
    """Run a guided forward of an image for each mixture, all in one."""
    arguments = {
        "sample": torch.zeros(2, model.denoiser.config.in_channels, CELLS, CELLS),
        "timestep": torch.tensor(500),
        "encoder_hidden_states": torch.zeros(2, 32, model.denoiser.config.cross_attention_dim),
    }
    with torch.no_grad():
        model.run([Forward(arguments, 2, None, mixture) for mixture in mixtures])


if __name__ == "__main__":
    main()
