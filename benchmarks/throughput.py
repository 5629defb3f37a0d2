"""Throughput: pictures per second of clients that always have one under way.

The service against what one would write without it, on the same requests: short and long ones,
with guidance and without.
"""

import asyncio
import functools
from dataclasses import asdict

from safelight import AsyncClient

from benchmarks.bare import (
    PROMPT,
    THREADS,
    Draw,
    Request,
    Requests,
    draw_behind_a_lock,
    draw_one_after_another,
    draw_with_copies,
    run_bare_pipeline,
)
from benchmarks.report import compare, take_turns, write_report
from tests.running_service import run_service

ROUNDS = 3
CONCURRENCIES = (1, 2, 4, 8, 16)
MIX = ((20, 4.0), (10, 4.0), (30, 4.0), (20, 1.0), (15, 6.0), (25, 4.0), (20, 4.0), (12, 1.0))
"""Steps and guidance scales of the requests."""

MIXES = 3
FEW_MIXES = 1
"""For threads that get into each other's way; the same requests, so the rates compare."""


def main() -> None:
    """Measure, print and write."""
    with run_bare_pipeline() as bare, run_service(batching="{}") as service:
        ways: dict[str, tuple[Draw, Requests]] = {
            "plain calls, one after another": (bare(draw_one_after_another), mix(MIXES)),
            f"{THREADS} threads and a lock": (bare(draw_behind_a_lock), mix(MIXES)),
            f"{THREADS} threads and shallow copies": (bare(draw_with_copies), mix(FEW_MIXES)),
        }
        for concurrency in CONCURRENCIES:
            draw = functools.partial(draw_by_service, service.target, concurrency)
            ways[f"the service, {concurrency} at once"] = (draw, mix(MIXES))
        seconds = take_turns(
            {name: functools.partial(draw, requests) for name, (draw, requests) in ways.items()},
            ROUNDS,
        )
    rates = {name: [len(ways[name][1]) / each for each in taken] for name, taken in seconds.items()}
    figures = compare(rates)
    print(f"{'pictures, 128 x 128, 10 to 30 steps':<42}{'per s':>7}   ratio")
    for name, figure in figures.items():
        print(f"{name:<42}{figure.measured.median:>7.2f}   {figure.ratio}")
    write_report("throughput", {name: asdict(figure) for name, figure in figures.items()})


def mix(times: int) -> Requests:
    """The mix of requests, so many times."""
    return [Request(*each, seed) for seed, each in enumerate(MIX * times)]


def draw_by_service(target: str, concurrency: int, requests: Requests) -> None:
    """Keep so many calls of the service under way."""
    asyncio.run(_call_service(target, concurrency, requests))


async def _call_service(target: str, concurrency: int, requests: Requests) -> None:
    waiting = list(reversed(requests))

    async def work(client: AsyncClient) -> None:
        while waiting:
            request = waiting.pop()
            await client.text_to_image(
                PROMPT,
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                seed=request.seed,
            )

    async with AsyncClient(target) as client:
        await asyncio.gather(*(work(client) for _ in range(concurrency)))


if __name__ == "__main__":
    main()
