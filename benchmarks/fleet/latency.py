"""Latency: first events, each event, and the pace of many streams, local and on Ray in turns."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from safelight import AsyncClient, Progress

from benchmarks.fleet.callers import call_apart
from benchmarks.fleet.goals import Goal, percentile
from support.fleet.processes import run_front, run_sleeping_service
from support.fleet.ray_cluster import deploy_engines, make_pool
from support.fleet.sleeping_engine import make_engine_of, sleeping_settings

ROUNDS = 4
CALLS = 25
"""Calls of a round, one after another."""
STEPS = 20
STREAMS = 64
PACE_S = 0.1


@dataclass(slots=True)
class Delays:
    """Milliseconds of one way."""

    first: list[float] = field(default_factory=list)
    """From a call to its first event."""
    events: list[float] = field(default_factory=list)
    """From the step in the engine to the client."""
    gaps: list[float] = field(default_factory=list)
    """Between two events of a stream, with 64 streams."""
    crowded: list[float] = field(default_factory=list)
    """From the step to the client, with 64 streams."""


def measure(ray_address: str) -> tuple[dict[str, Delays], list[Goal]]:
    """Measure both ways in turns."""
    quick, paced = make_engine_of(0.005, 8), make_engine_of(PACE_S, STREAMS)
    settings, pool = sleeping_settings(), make_pool(1)
    delays = {"local": Delays(), "Ray": Delays()}
    with ExitStack() as stack:
        cluster = stack.enter_context(deploy_engines(ray_address, settings, pool, quick))
        targets = {
            "local": stack.enter_context(run_sleeping_service(0.005, 8)).address,
            "Ray": stack.enter_context(run_front(cluster)).address,
        }
        delays = call_apart(_call_in_turns, targets, delays)
    with ExitStack() as stack:
        cluster = stack.enter_context(deploy_engines(ray_address, settings, pool, paced))
        targets = {
            "local": stack.enter_context(run_sleeping_service(PACE_S, STREAMS)).address,
            "Ray": stack.enter_context(run_front(cluster)).address,
        }
        delays = call_apart(_stream_in_turns, targets, delays)
    local, ray = delays["local"], delays["Ray"]
    first = percentile(ray.first, 0.95) - percentile(local.first, 0.95)
    return delays, [
        Goal("first event, p95 above that of a local engine", 10, first, "ms"),
        Goal("an event, p95", 3, percentile(ray.events, 0.95), "ms"),
        Goal("64 streams, a step each 100 ms: gap, p95", 150, percentile(ray.gaps, 0.95), "ms"),
    ]


async def _call_in_turns(
    targets: Mapping[str, str], delays: dict[str, Delays]
) -> dict[str, Delays]:
    for round_ in range(ROUNDS + 1):
        for name, target in targets.items():
            into = delays[name] if round_ else Delays()  # the first round warms up
            async with AsyncClient(target) as client:
                await client.list_models()
                for _ in range(CALLS):
                    await _follow(client, into.first, into.events, [])
    return delays


async def _stream_in_turns(
    targets: Mapping[str, str], delays: dict[str, Delays]
) -> dict[str, Delays]:
    for round_ in range(3):
        for name, target in targets.items():
            into = delays[name] if round_ else Delays()
            async with AsyncClient(target) as client:
                streams = (_follow(client, [], into.crowded, into.gaps) for _ in range(STREAMS))
                await asyncio.gather(*streams)
    return delays


async def _follow(
    client: AsyncClient, first: list[float], events: list[float], gaps: list[float]
) -> None:
    """Follow a generation; add milliseconds to the lists."""
    called_at = time.monotonic()
    before: float | None = None
    has_begun = False
    async with client.generate("a red circle", num_inference_steps=STEPS) as generation:
        async for event in generation:
            now = time.monotonic()
            if not has_begun:
                has_begun = True
                first.append(1e3 * (now - called_at))
            if isinstance(event, Progress):
                events.append(1e3 * (now - event.elapsed_s))
                if before is not None:
                    gaps.append(1e3 * (now - before))
                before = now
