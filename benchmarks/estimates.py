"""Estimates: error of the remaining time reported during a generation's first steps.

Clients generate without a pause, 20 steps each, so the service is in a steady state.
"""

import asyncio
import statistics
import time
from dataclasses import asdict

from safelight import AsyncClient, Progress

from benchmarks.harness.report import Spread, write_report
from support.running_service import run_service

CLIENTS = (1, 4)
GENERATIONS = 8
STEPS = 20


def main() -> None:
    """Measure, print and save."""
    figures: dict[str, Spread] = {}
    with run_service(batching="{}") as service:
        for clients in CLIENTS:
            asyncio.run(follow_all(service.target, clients, 2))
            errors = asyncio.run(follow_all(service.target, clients, GENERATIONS))
            figures[f"{clients} clients"] = Spread.of(errors)
            print(f"{clients} clients: estimated / actual {figures[f'{clients} clients']}")
    write_report("estimates", {name: asdict(figure) for name, figure in figures.items()})


async def follow_all(target: str, clients: int, generations: int) -> list[float]:
    """Run all generations; return each ratio of estimated to actual remaining time."""

    async def follow(client: AsyncClient) -> list[float]:
        return [await follow_one(client) for _ in range(generations)]

    async with AsyncClient(target) as client:
        found = await asyncio.gather(*(follow(client) for _ in range(clients)))
    return [ratio for ratios in found for ratio in ratios]


async def follow_one(client: AsyncClient) -> float:
    """Run a generation; return the mean ratio of estimated to actual remaining time.

    Uses the estimates of the first quarter of its steps.
    """
    estimates: list[tuple[float, float]] = []
    async with client.generate("a red circle", num_inference_steps=STEPS) as events:
        async for event in events:
            if isinstance(event, Progress) and event.step <= STEPS // 4:
                estimates.append((time.perf_counter(), event.estimated_remaining_s))
    ended_at = time.perf_counter()
    return statistics.fmean(estimate / (ended_at - at) for at, estimate in estimates)


if __name__ == "__main__":
    main()
