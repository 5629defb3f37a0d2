"""Routers: the product's, Serve's default and round robin, with requests of several sizes."""

import asyncio
import random
import time
from dataclasses import dataclass

from safelight import AsyncClient, Completed

from benchmarks.fleet.callers import call_apart
from benchmarks.fleet.goals import Goal, percentile
from benchmarks.fleet.mixed_sizes import CALLERS, ENGINES, LOAD, SIZES, STEPS
from support.fleet.merging_engine import make_merging_engine
from support.fleet.processes import run_front
from support.fleet.ray_cluster import deploy_engines, make_pool
from support.fleet.round_robin import ROUTER as ROUND_ROBIN
from support.fleet.sleeping_engine import sleeping_settings

SECONDS = 100.0
OURS = "Safelight's"
ROUTERS = {
    OURS: "",
    "Serve's default": "ray.serve._private.request_router:PowerOfTwoChoicesRequestRouter",
    "round robin": ROUND_ROBIN,
}


@dataclass(frozen=True, slots=True)
class Figures:
    """Latency and batch width with one router."""

    p50_s: float
    p99_s: float
    mean_width: float


def measure(ray_address: str) -> tuple[dict[str, Figures], list[Goal]]:
    """Give all routers the same calls, at 0.7 of what the engines make with the product's."""
    figures = {}
    rate = 0.0
    for name, router in ROUTERS.items():
        with (
            deploy_engines(
                ray_address, sleeping_settings(), make_pool(ENGINES), make_merging_engine, router
            ) as cluster,
            run_front(cluster) as front,
        ):
            rate = rate or call_apart(_find_capacity, front.address)
            figures[name] = call_apart(_call_at, front.address, LOAD * rate)
    ours, robin = figures[OURS], figures["round robin"]
    return figures, [
        Goal("3 engines, mixed sizes: p99 by round robin's", 0.5, ours.p99_s / robin.p99_s)
    ]


async def _find_capacity(target: str) -> float:
    """Return the generations per second of callers that never pause."""
    sizes = random.Random(0)
    ended = 0
    begun_at = time.monotonic()

    async def call(client: AsyncClient) -> None:
        nonlocal ended
        while time.monotonic() < begun_at + SECONDS / 6:
            await _generate(client, sizes.choice(SIZES))
            ended += 1

    async with AsyncClient(target) as client:
        await asyncio.gather(*(call(client) for _ in range(CALLERS)))
        return ended / (time.monotonic() - begun_at)


async def _call_at(target: str, rate: float) -> Figures:
    """Call at random moments, `rate` times a second."""
    drawn = random.Random(1)
    moments: list[float] = []
    while not moments or moments[-1] < SECONDS:
        moments.append((moments[-1] if moments else 0.0) + drawn.expovariate(rate))
    calls = [(moment, drawn.choice(SIZES)) for moment in moments]
    begun_at = time.monotonic()
    seconds: list[float] = []
    widths: list[float] = []

    async def call(client: AsyncClient, moment: float, size: tuple[int, int]) -> None:
        await asyncio.sleep(begun_at + moment - time.monotonic())
        called_at = time.monotonic()
        completed = await _generate(client, size)
        seconds.append(time.monotonic() - called_at)
        steps = sum(completed.batch_widths.values())
        widths.append(sum(width * n for width, n in completed.batch_widths.items()) / steps)

    async with AsyncClient(target) as client:
        await asyncio.gather(*(call(client, *each) for each in calls))
    return Figures(percentile(seconds, 0.5), percentile(seconds, 0.99), sum(widths) / len(widths))


async def _generate(client: AsyncClient, size: tuple[int, int]) -> Completed:
    width, height = size
    generating = client.generate(
        "a red circle", width=width, height=height, num_inference_steps=STEPS
    )
    async with generating as generation:
        async for event in generation:
            if isinstance(event, Completed):
                return event
    raise AssertionError("the generation has ended without `completed`")
