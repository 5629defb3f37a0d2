"""Throughput: generations per second of one engine and of two."""

import asyncio
import time

from safelight import AsyncClient

from benchmarks.fleet.callers import call_apart
from benchmarks.fleet.goals import Goal
from support.fleet.processes import run_front
from support.fleet.ray_cluster import deploy_engines, make_pool
from support.fleet.sleeping_engine import make_engine_of, sleeping_settings

STEP_S = 0.1
WIDTH = 8
STEPS = 10
SECONDS = 12.0


def measure(ray_address: str) -> tuple[dict[int, float], list[Goal]]:
    """Measure with callers that never pause, twice as many as the engines run."""
    per_s = {}
    for count in (1, 2):
        with (
            deploy_engines(
                ray_address, sleeping_settings(), make_pool(count), make_engine_of(STEP_S, WIDTH)
            ) as cluster,
            run_front(cluster) as front,
        ):
            per_s[count] = call_apart(_saturate, front.address, 2 * count * WIDTH)
    ratio = per_s[2] / per_s[1]
    return per_s, [Goal("throughput of 2 engines, by that of 1", 1.9, ratio, is_least=True)]


async def _saturate(target: str, callers: int) -> float:
    """Return the generations that end per second, after some to warm up."""
    begun_at = time.monotonic() + 3 * STEPS * STEP_S
    ended = 0

    async def call(client: AsyncClient) -> None:
        nonlocal ended
        while time.monotonic() < begun_at + SECONDS:
            await client.text_to_image("a red circle", num_inference_steps=STEPS)
            ended += begun_at <= time.monotonic() < begun_at + SECONDS

    async with AsyncClient(target) as client:
        await asyncio.gather(*(call(client) for _ in range(callers)))
    return ended / SECONDS
