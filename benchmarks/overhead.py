"""Overhead: what a call through the service costs beyond the bare pipeline.

The ways of making one picture take turns, so that a machine that is slower for a
while is so for all of them, and each is compared with the bare pipeline of the same
round.
"""

import io
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import resources

import torch
from diffusers import DiffusionPipeline
from safelight import Client

from benchmarks.report import Spread, write_report
from tests.running_service import run_service

PROMPT = "a red circle on a blue background"
STEPS = 20
GUIDANCE_SCALE = 4.0
ROUNDS = 15
SETTLE_S = 0.5
"""Torch's idle threads spin for a while; the next way must not have to share with them."""

Way = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Figure:
    """Seconds of one way to make a picture, and its ratio to the bare pipeline by rounds."""

    seconds: Spread
    ratio: Spread


def main() -> None:
    """Measure, print and write."""
    pipeline = load_bare_pipeline()

    def bare() -> None:
        generator = torch.Generator("cpu").manual_seed(0)
        picture = pipeline(
            PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE_SCALE, generator=generator
        ).images[0]
        picture.save(io.BytesIO(), "PNG")

    with run_service() as service, Client(service.target) as client:

        def watch(preview_every: int) -> None:
            with client.generate(PROMPT, seed=0, preview_every=preview_every) as events:
                for _ in events:
                    pass

        ways: dict[str, Way] = {
            "bare pipeline": bare,
            "through the service": lambda: watch(preview_every=0),
            "with a preview each step": lambda: watch(preview_every=1),
        }
        figures = compare(ways)
    report(figures)


def load_bare_pipeline() -> DiffusionPipeline:
    """Load the embedded model as any user of diffusers would."""
    folder = resources.files("safelight_service") / "models" / "shapes"
    pipeline = DiffusionPipeline.from_pretrained(str(folder), dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def compare(ways: Mapping[str, Way]) -> dict[str, Figure]:
    """Time each way once a round, after a round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            time.sleep(SETTLE_S)
            begun_at = time.perf_counter()
            way()
            if round_:
                seconds[name].append(time.perf_counter() - begun_at)
    base = next(iter(seconds.values()))
    return {
        name: Figure(Spread.of(taken), Spread.of_ratios(taken, base))
        for name, taken in seconds.items()
    }


def report(figures: Mapping[str, Figure]) -> None:
    """Print the table and write the results."""
    print(f"{'one picture, 128 x 128, 20 steps':<34}{'median':>9}   ratio")
    for name, figure in figures.items():
        print(f"{name:<34}{figure.seconds.median:>7.3f} s   {figure.ratio}")
    write_report("overhead", {name: asdict(figure) for name, figure in figures.items()})


if __name__ == "__main__":
    main()
