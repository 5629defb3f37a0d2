"""Latency: from the call to the image, for calls that arrive at random.

Mixes short and long generations, with and without merged forwards. A load is a share of the rate
that the service sustains one at a time, measured before each load. In a round, all ways get the
same calls at the same moments.
"""

import asyncio
import itertools
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass

from safelight import AsyncClient

from benchmarks.harness.report import Percentiles, Spread, compare, take_turns, write_report
from support.running_service import run_service

CALLS = 20
ROUNDS = 3
LOADS = (0.5, 0.8, 0.95)
STEPS, WEIGHTS = (5, 10, 20, 60), (4, 3, 2, 1)
NOT_MERGED = "not merged"
WAYS = {
    NOT_MERGED: '{"max_width": 1}',
    "merged": '{"order": "first_come", "profiles_file": ""}',
    "merged, shortest first": '{"order": "shortest_remaining", "profiles_file": ""}',
}


@dataclass(frozen=True, slots=True)
class Call:
    """A call, and its start in seconds after the first one."""

    at_s: float
    steps: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds of all calls, and ratios of each round's mean to that without merging."""

    seconds: Percentiles
    ratio: Spread


def main() -> None:
    """Measure, print and save."""
    figures: dict[str, dict[str, Latency]] = {}
    print(
        f"{ROUNDS} x {CALLS} calls of 5 to 60 steps{'mean':>10}{'p50':>8}{'p99':>8}   ratio of mean"
    )
    with ExitStack() as services:
        targets = {
            name: services.enter_context(
                run_service(batching=batching, queue_size=str(CALLS))
            ).target
            for name, batching in WAYS.items()
        }
        for load in LOADS:
            figures[f"load {load}"] = measure(targets, load)
            for name, figure in figures[f"load {load}"].items():
                seconds = figure.seconds
                print(
                    f"load {load}, {name:<24}"
                    f"{seconds.mean:>8.2f}{seconds.p50:>8.2f}{seconds.p99:>8.2f}   {figure.ratio}"
                )
    write_report(
        "latency",
        {load: {name: asdict(f) for name, f in ways.items()} for load, ways in figures.items()},
    )


def measure(targets: Mapping[str, str], load: float) -> dict[str, Latency]:
    """Make the same calls in each way, at one load."""
    mean_step_s = asyncio.run(measure_step_s(targets[NOT_MERGED])) / load
    taken: dict[str, list[list[float]]] = {name: [] for name in targets}

    def way(name: str) -> Callable[[], float]:
        seeds = itertools.count()

        def call() -> float:
            calls = draw_calls(mean_step_s, next(seeds))
            taken[name].append(asyncio.run(run(targets[name], calls)))
            return statistics.fmean(taken[name][-1])

        return call

    comparisons = compare(take_turns({name: way(name) for name in targets}, ROUNDS))
    return {
        name: Latency(
            Percentiles.of(list(itertools.chain(*taken[name][1:]))),  # without the warm-up
            comparison.ratio,
        )
        for name, comparison in comparisons.items()
    }


async def measure_step_s(target: str) -> float:
    """Return the seconds of a step while one generation runs alone."""
    async with AsyncClient(target) as client:
        await make(client, 5)
        begun_at = time.perf_counter()
        await make(client, 60)
        return (time.perf_counter() - begun_at) / 60


def draw_calls(mean_step_s: float, seed: int) -> list[Call]:
    """Draw random calls that arrive, on average, every `mean_step_s` for each of their steps."""
    rng = random.Random(seed)
    mean_s = mean_step_s * sum(s * w for s, w in zip(STEPS, WEIGHTS, strict=True)) / sum(WEIGHTS)
    calls, now = [], 0.0
    for _ in range(CALLS):
        calls.append(Call(now, rng.choices(STEPS, WEIGHTS)[0]))
        now += rng.expovariate(1 / mean_s)
    return calls


async def run(target: str, calls: Sequence[Call]) -> list[float]:
    """Start each call at its moment; return the seconds of each."""
    async with AsyncClient(target) as client:
        await make(client, 5)

        async def make_timed(call: Call) -> float:
            await asyncio.sleep(call.at_s)
            begun_at = time.perf_counter()
            await make(client, call.steps)
            return time.perf_counter() - begun_at

        return await asyncio.gather(*(make_timed(call) for call in calls))


async def make(client: AsyncClient, steps: int) -> None:
    """Make one image."""
    await client.text_to_image("a red circle", num_inference_steps=steps, seed=0)


if __name__ == "__main__":
    main()
