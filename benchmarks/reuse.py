"""Step reuse: speed against exactness, by the share of reused steps and by scheduler.

Speed counts forwards of a service with the embedded model, and its images per second, for one
caller and for eight. Exactness is the mean difference from the image of all steps, beside that of
an image with as many steps fewer, and the share of prompts that the judge of the embedded model
finds drawn right.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from safelight import Client
from torch import Tensor

from benchmarks.harness.report import write_report
from support.running_service import run_service
from training.scenes.judge import Verdict, judge
from training.scenes.prompts import Prompt, evaluation_prompts

STEPS = 30
SHARES = (0.0, 1 / 3, 0.45, 0.6)
SCHEDULERS = ("ddim", "euler", "dpm++_2m", "euler_a")
CALLERS = 8
COMPARED = 24
"""Images that are compared with those of all steps."""
SPEED_GOAL = 1.35
"""Images per second by those without reuse, for one caller and for eight."""
SPEED_SHARE = 1 / 3


@dataclass(frozen=True, slots=True)
class Exactness:
    """Images of a share of reused steps."""

    difference: float
    """Mean absolute difference from the images of all steps, in levels of 255."""
    fewer_steps: float
    """The same of images with as many steps fewer."""
    colour: int
    background: int
    shape: int
    """Prompts that are drawn right."""


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=500, help="for the judge")
    parser.add_argument("--seconds", type=float, default=20.0, help="for each turn of the speed")
    parser.add_argument("--rehearse", action="store_true", help="try it briefly, and save nothing")
    arguments = parser.parse_args()
    count, seconds = (2, 1.0) if arguments.rehearse else (arguments.prompts, arguments.seconds)
    with run_service() as service:
        speeds = {callers: compare_speeds(service.target, callers, seconds) for callers in (1, 8)}
        prompts = _take(evaluation_prompts(), count)
        exactness = {
            scheduler: compare_images(service.target, scheduler, prompts, full=number == 0)
            for number, scheduler in enumerate(SCHEDULERS)
        }
    for callers, ratio in speeds.items():
        verdict = "met" if ratio >= SPEED_GOAL else "MISSED"
        print(f"{callers} callers, a third reused: {ratio:.2f} x, goal {SPEED_GOAL}: {verdict}")
    print(f"{'scheduler':<12}{'share':>6}{'differs':>9}{'fewer steps':>13}   right of prompts")
    for scheduler, shares in exactness.items():
        for share, seen in shares.items():
            print(
                f"{scheduler:<12}{share:>6.2f}{seen.difference:>9.3f}{seen.fewer_steps:>13.3f}   "
                f"colour {seen.colour}, background {seen.background}, shape {seen.shape}"
            )
    if not arguments.rehearse:
        write_report(
            "reuse",
            {
                "speeds": speeds,
                "prompts": count,
                "exactness": {
                    scheduler: {f"{share:.2f}": asdict(seen) for share, seen in shares.items()}
                    for scheduler, shares in exactness.items()
                },
            },
        )


def compare_speeds(target: str, callers: int, seconds: float) -> float:
    """Return the images per second with a third of the steps reused, by those without."""
    rates: dict[float, list[float]] = {0.0: [], SPEED_SHARE: []}
    for _ in range(3):
        for share, measured in rates.items():
            measured.append(_measure_rate(target, callers, seconds / 3, share))
    return statistics.median(rates[SPEED_SHARE]) / statistics.median(rates[0.0])


def _measure_rate(target: str, callers: int, seconds: float, share: float) -> float:
    begun_at = time.perf_counter()

    def call(seed: int) -> int:
        made = 0
        with Client(target) as client:
            while time.perf_counter() < begun_at + seconds:
                draw(client, "a red circle", 100 * seed + made, share)
                made += 1
        return made

    with ThreadPoolExecutor(callers) as threads:
        made = sum(threads.map(call, range(callers)))
    return made / (time.perf_counter() - begun_at)


def compare_images(
    target: str, scheduler: str, prompts: Sequence[Prompt], *, full: bool
) -> dict[float, Exactness]:
    """Compare images of each share; with few prompts unless `full`."""
    chosen = prompts if full else prompts[:COMPARED]

    def draw_all(share: float, steps: int = STEPS, count: int | None = None) -> list[Tensor]:
        with Client(target) as client, ThreadPoolExecutor(CALLERS) as threads:
            return list(
                threads.map(
                    lambda each: draw(client, each[1].text, each[0], share, steps, scheduler),
                    enumerate(chosen[:count]),
                )
            )

    whole = draw_all(0.0)
    found = {}
    for share in SHARES:
        pictures = whole if share == 0 else draw_all(share)
        fewer = draw_all(0.0, STEPS - round(share * STEPS), COMPARED) if share else whole[:COMPARED]
        verdicts: list[Verdict] = [judge(picture) for picture in pictures]
        pairs = list(zip(chosen, verdicts, strict=True))
        found[share] = Exactness(
            differ(pictures[:COMPARED], whole[:COMPARED]),
            differ(fewer, whole[:COMPARED]),
            sum(prompt.colour == seen.colour for prompt, seen in pairs),
            sum(prompt.background == seen.background for prompt, seen in pairs),
            sum(prompt.shape == seen.shape for prompt, seen in pairs),
        )
    return found


def draw(
    client: Client,
    prompt: str,
    seed: int,
    share: float,
    steps: int = STEPS,
    scheduler: str | None = None,
) -> Tensor:
    """Make an image; return its pixels (3, height, width) in [0, 1]."""
    image = client.text_to_image(
        prompt,
        seed=seed,
        num_inference_steps=steps,
        step_reuse=share,
        scheduler=scheduler,
        use_cache=False,
    )
    levels = np.asarray(image.convert("RGB"), np.float32) / 255
    return torch.from_numpy(levels).permute(2, 0, 1)


def differ(pictures: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Return the mean absolute difference of pictures, in levels of 255."""
    return 255 * statistics.fmean(
        float((one - other).abs().mean()) for one, other in zip(pictures, others, strict=True)
    )


def _take(prompts: Sequence[Prompt], count: int) -> list[Prompt]:
    """Return `count` prompts, repeated if there are fewer: each gets a seed of its own."""
    return [prompts[number % len(prompts)] for number in range(count)]


if __name__ == "__main__":
    main()
