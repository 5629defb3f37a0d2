"""Cancels: through another front than the generation's, and the memory of the fronts."""

import asyncio
import time
from contextlib import ExitStack

from safelight import AsyncClient, CallCancelledError, Progress

from benchmarks.fleet.goals import Goal
from support.fleet.processes import run_front
from support.fleet.ray_cluster import RayCluster, deploy_engines, make_pool
from support.fleet.sleeping_engine import make_engine_of, sleeping_settings
from support.redis_server import open_redis_server
from support.running_service import Usage

CANCELS = 100
STEP_S = 0.1


def measure(ray_address: str) -> tuple[dict[str, float], list[Goal]]:
    """Cancel generations of one front through another one."""
    with ExitStack() as stack:
        redis = stack.enter_context(open_redis_server())
        redis.start()
        cluster = stack.enter_context(
            deploy_engines(
                ray_address, sleeping_settings(), make_pool(1), make_engine_of(STEP_S, 1)
            )
        )
        fronts = [stack.enter_context(run_front(cluster, redis.url)) for _ in "AB"]
        freed_s = asyncio.run(_cancel_all(cluster, *(front.address for front in fronts)))
        memory_mib = max(Usage.read(front.process_id).resident_mib for front in fronts)
    cancelled = len(freed_s)
    goals = [
        Goal(f"cancels of {CANCELS} through another front", CANCELS, cancelled, is_least=True),
        Goal("a cancel, until the engine is free: longest", 1e3 * STEP_S, 1e3 * max(freed_s), "ms"),
        Goal("memory of a front", 150e6 / 2**20, memory_mib, "MiB"),
    ]
    return {"cancelled": cancelled, "freed_s": max(freed_s), "front_mib": memory_mib}, goals


async def _cancel_all(cluster: RayCluster, front_a: str, front_b: str) -> list[float]:
    """Return the seconds until the engine was free, for each that was cancelled."""
    freed_s = []
    async with AsyncClient(front_a) as a, AsyncClient(front_b) as b:
        for number in range(CANCELS):
            name = f"cancel-{number}"
            async with a.generate("a", num_inference_steps=500, generation_id=name) as generation:
                async for event in generation:
                    if isinstance(event, Progress):
                        break
                begun_at = time.monotonic()
                await b.cancel(name)
                while await asyncio.to_thread(cluster.is_busy):
                    pass
                seconds = time.monotonic() - begun_at
                try:
                    await generation.images()
                except CallCancelledError:
                    freed_s.append(seconds)
    return freed_s
