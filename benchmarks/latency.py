"""Latency: from the call to the picture, under calls that come at random.

Short generations among long ones, at shares of what the service can make of them one at a
time, as measured before each load, with forwards merged and not. At one load, every way gets
the same calls at the same moments.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from safelight import AsyncClient

from benchmarks.report import Percentiles, write_report
from tests.running_service import run_service

CALLS = 60
LOADS = (0.5, 0.8, 0.95)
STEPS, WEIGHTS = (5, 10, 20, 60), (4, 3, 2, 1)
WAYS = {
    "merged": '{"profiles_file": ""}',
    "not merged": '{"max_width": 1}',
    "merged, shortest first": '{"order": "shortest_remaining", "profiles_file": ""}',
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call, how many seconds after the first one it comes at a load of 1."""

    at_s: float
    steps: int


def main() -> None:
    """Measure, print and write."""
    figures: dict[str, dict[str, Percentiles]] = {}
    print(f"{CALLS} calls of 5 to 60 steps, seconds{'mean':>8}{'p50':>8}{'p99':>8}")
    for load in LOADS:
        with run_service(batching=WAYS["not merged"]) as service:
            calls = draw_calls(asyncio.run(measure_step_s(service.target)))
        for name, batching in WAYS.items():
            with run_service(batching=batching, queue_size=str(CALLS)) as service:
                taken = asyncio.run(run(service.target, calls, load))
            figure = figures.setdefault(f"load {load}", {})[name] = Percentiles.of(taken)
            label = f"load {load}, {name}"
            print(f"{label:<34}{figure.mean:>9.2f}{figure.p50:>8.2f}{figure.p99:>8.2f}")
    write_report(
        "latency",
        {load: {name: asdict(f) for name, f in ways.items()} for load, ways in figures.items()},
    )


async def measure_step_s(target: str) -> float:
    """Seconds of a step of one generation alone."""
    async with AsyncClient(target) as client:
        await make(client, 5)
        begun_at = time.perf_counter()
        await make(client, 60)
        return (time.perf_counter() - begun_at) / 60


def draw_calls(step_s: float) -> list[Call]:
    """Draw calls that keep a service that runs them one at a time exactly busy."""
    rng = random.Random(0)
    mean_s = step_s * sum(s * w for s, w in zip(STEPS, WEIGHTS, strict=True)) / sum(WEIGHTS)
    calls, now = [], 0.0
    for _ in range(CALLS):
        calls.append(Call(now, rng.choices(STEPS, WEIGHTS)[0]))
        now += rng.expovariate(1 / mean_s)
    return calls


async def run(target: str, calls: Sequence[Call], load: float) -> list[float]:
    """Make the calls at their moments; return the seconds that each took."""
    async with AsyncClient(target) as client:
        await make(client, 5)

        async def make_timed(call: Call) -> float:
            await asyncio.sleep(call.at_s / load)
            begun_at = time.perf_counter()
            await make(client, call.steps)
            return time.perf_counter() - begun_at

        return await asyncio.gather(*(make_timed(call) for call in calls))


async def make(client: AsyncClient, steps: int) -> None:
    """Make one picture."""
    await client.text_to_image("a red circle", num_inference_steps=steps, seed=0)


if __name__ == "__main__":
    main()
