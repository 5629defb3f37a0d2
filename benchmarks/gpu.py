"""`make bench-gpu`: well-known architectures with random weights, through the service.

Pictures per second with one call under way and with eight, as a share of what the arithmetic
of the denoiser and the decoder allows on an H200; what a forward of 1 to 16 merged takes; what a
step of eight does, so that the rest of it is seen; and what it does while others come and go,
whose pictures are decoded. Results are added to those that the same machine has already.
On a processor the same architectures run shrunk, which proves the harness and nothing else.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from safelight import AsyncClient, Progress

from benchmarks.architectures import make_pipeline
from benchmarks.forwards import measure_forwards
from benchmarks.report import add_to_report
from safelight_service.engine.loading import silence_libraries
from safelight_service.settings import ModelSettings
from tests.running_service import run_service

EIGHT = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A job, and how many a second an H200 could make of it (790 TFLOP/s in bfloat16)."""

    architecture: str
    side_px: int
    steps: int
    limit_per_s: float | None

    def __str__(self) -> str:
        return f"{self.architecture} {self.side_px} px {self.steps} steps"


CASES = (
    Case("sd15", 512, 30, 15.6),
    Case("sdxl", 1024, 20, 2.81),
    Case("sdxl", 1024, 30, 1.90),
    Case("sd3", 1024, 28, None),
    Case("flux-dev", 1024, 28, 1 / 2.65),
    Case("flux-dev", 512, 28, None),
)

VARIANTS: Mapping[str, Mapping[str, object]] = {
    "eager": {},
    "channels_last": {"channels_last": True},
    "regional": {"compile": "regional"},
    "full": {"compile": "full"},
    "fp8": {"compile": "regional", "quantization": "fp8"},
}


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures per second with one call and with eight under way, and seconds of their steps."""

    one_per_s: float
    eight_per_s: float
    step_s: float
    """Median, of eight that begin and end together."""
    disturbed_step_s: float
    """Mean, of one while seven short ones begin and end."""
    forward_s: Mapping[int, float]
    """Of the denoiser alone, by how many images share a forward."""
    limit_per_s: float | None


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="architectures; all without")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["eager"])
    parser.add_argument("--pictures", type=int, default=16, help="with eight under way")
    arguments = parser.parse_args()
    silence_libraries()
    has_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if has_gpu else "cpu")
    report = "gpu" if has_gpu else "gpu-shrunk"
    for name in dict.fromkeys(case.architecture for case in CASES):
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            make_pipeline(name, device, shrunk=not has_gpu).save_pretrained(folder)
            if has_gpu:
                torch.cuda.empty_cache()
            cases = [_fit(case, has_gpu) for case in CASES if case.architecture == name]
            for variant in arguments.variants:
                for case, figure in measure(folder, cases, variant, arguments.pictures):
                    print_figure(case, variant, figure)
                    add_to_report(report, str(case), {variant: asdict(figure)})


def measure(
    folder: str, cases: Sequence[Case], variant: str, pictures: int
) -> Iterator[tuple[Case, Figure]]:
    """Serve the pipeline in that folder, and time all its cases."""
    model = ModelSettings.model_validate(
        {"name": "model", "source": folder, "acceleration": VARIANTS[variant]}
    )
    forwards_s = [measure_forwards(model, case.side_px, case.steps) for case in cases]
    settings: dict[str, Any] = {
        "models": f"[{model.model_dump_json()}]",
        "batching": '{"profiles_file": ""}',
    }
    with run_service(warnings="ignore", **settings) as service:
        for case, forward_s in zip(cases, forwards_s, strict=True):
            asyncio.run(call(service.target, case, 1, 1))  # measures the widths, and compiles
            asyncio.run(call(service.target, case, EIGHT, EIGHT))
            one_per_s, _ = asyncio.run(call(service.target, case, 1, max(1, pictures // 4)))
            eight_per_s, steps_s = asyncio.run(call(service.target, case, EIGHT, pictures))
            disturbed_s = asyncio.run(disturb(service.target, case))
            yield (
                case,
                Figure(
                    one_per_s,
                    eight_per_s,
                    statistics.median(steps_s),
                    statistics.fmean(disturbed_s),
                    forward_s,
                    case.limit_per_s,
                ),
            )


async def call(
    target: str, case: Case, concurrency: int, pictures: int
) -> tuple[float, list[float]]:
    """Make so many pictures with so many calls under way.

    Return the pictures per second, and the seconds of all steps but the first of each.
    """
    waiting = list(range(pictures))
    steps_s: list[float] = []

    async def work(client: AsyncClient) -> None:
        while waiting:
            steps_s.extend(await make(client, case, case.steps, waiting.pop()))

    async with AsyncClient(target) as client:
        begun_at = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(concurrency)))
        return pictures / (time.perf_counter() - begun_at), steps_s


async def disturb(target: str, case: Case) -> list[float]:
    """Make a picture beside seven clients with short ones; return the seconds of its steps."""
    async with AsyncClient(target) as client:

        async def make_short_ones(seed: int) -> None:
            while True:
                await make(client, case, max(2, case.steps // 4), seed)

        others = [asyncio.create_task(make_short_ones(seed)) for seed in range(1, EIGHT)]
        try:
            return await make(client, case, case.steps, 0)
        finally:
            for other in others:
                other.cancel()
            await asyncio.gather(*others, return_exceptions=True)


async def make(client: AsyncClient, case: Case, steps: int, seed: int) -> list[float]:
    """Make a picture; return the seconds of all its steps but the first."""
    ended_at = []
    async with client.generate(
        "a lighthouse at dusk",
        width=case.side_px,
        height=case.side_px,
        num_inference_steps=steps,
        seed=seed,
    ) as events:
        async for event in events:
            if isinstance(event, Progress):
                ended_at.append(event.elapsed_s)
    return [end - begin for begin, end in pairwise(ended_at)]


def print_figure(case: Case, variant: str, figure: Figure) -> None:
    """Print a line of the table."""
    share = ""
    if figure.limit_per_s is not None:
        one, eight = (each / figure.limit_per_s for each in (figure.one_per_s, figure.eight_per_s))
        share = f"   {one:.2f} and {eight:.2f} of the limit"
    forwards = ", ".join(f"{width}: {1e3 * s:.1f}" for width, s in figure.forward_s.items())
    print(
        f"{case!s:<28}{variant:<14}{figure.one_per_s:7.2f} alone {figure.eight_per_s:7.2f} "
        f"with eight a second{share}\n    ms a forward by images: {forwards}\n"
        f"    ms a step of eight: {1e3 * figure.step_s:.1f}, "
        f"while others come and go {1e3 * figure.disturbed_step_s:.1f}",
        flush=True,
    )


def _fit(case: Case, has_gpu: bool) -> Case:
    """Shrink a case for a processor."""
    if has_gpu:
        return case
    return Case(case.architecture, case.side_px // 8, 4, None)


if __name__ == "__main__":
    main()
