"""Callers: ordinary clients that make generations among faults, and the figures of these."""

import argparse
import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from safelight import AsyncClient, Restarted, SafelightError

from benchmarks.faults.fault_loop import FaultLoop
from support.fleet.replica import Replica

PROMPT = "a red circle on a blue background"
SIZE: dict[str, Any] = {"width": 64, "height": 64}
SEEDS = 10
CALLERS = 8
LINGER_S = 60
"""Longer than Envoy takes to notice a frozen service."""


def parse_arguments(description: str | None) -> tuple[int, int, bool]:
    """Return the number of generations, the seed of the faults, and whether this is a rehearsal."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--generations", type=int, default=200, help="(default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    parser.add_argument("--rehearse", action="store_true", help="12 generations and no file")
    arguments = parser.parse_args()
    count = 12 if arguments.rehearse else arguments.generations
    return count, arguments.seed, arguments.rehearse


class Made:
    """One generation of a caller."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.seed = seed
        self.began_at = self.ended_at = time.monotonic()
        self.silence_s = 0.0
        """Longest time without an event; clients hide steps that are made again."""
        self.restart_count = 0
        self.sha256 = ""
        self.error = ""


async def make_undisturbed(target: str, steps: int) -> list[str]:
    """Return the SHA-256 of the image of each seed."""
    async with AsyncClient(target) as client:
        digests = []
        for seed in range(SEEDS):
            async with client.generate(
                PROMPT, seed=seed, use_cache=False, num_inference_steps=steps, **SIZE
            ) as generation:
                digests.append((await generation.images())[0].sha256)
        return digests


async def make(target: str, count: int, steps: int, faults: FaultLoop) -> list[Made]:
    """Make generations from several callers at once, half of them with the cache."""
    rng = random.Random(0)
    plans = [Made(f"g{number}", rng.randrange(SEEDS)) for number in range(count)]
    waiting = iter(plans)

    async def call(client: AsyncClient) -> None:
        for each in waiting:
            await _make_one(client, each, steps)
            seconds = round(each.ended_at - each.began_at, 1)
            silence = f"(silent {each.silence_s:.1f})"
            print(each.name, seconds, silence, faults.latest, each.error, flush=True)

    async with AsyncClient(target) as client:
        await asyncio.gather(*(call(client) for _ in range(CALLERS)))
    return plans


async def _make_one(client: AsyncClient, made: Made, steps: int) -> None:
    made.began_at = heard_at = time.monotonic()
    try:
        async with client.generate(
            PROMPT,
            seed=made.seed,
            generation_id=made.name,
            use_cache=int(made.name[1:]) % 2 == 0,
            linger=LINGER_S,
            num_inference_steps=steps,
            **SIZE,
        ) as generation:
            async for event in generation:
                made.silence_s = max(made.silence_s, time.monotonic() - heard_at)
                heard_at = time.monotonic()
                if isinstance(event, Restarted):
                    made.restart_count = event.restart_count
            made.sha256 = (await generation.images())[0].sha256
    except SafelightError as error:
        made.error = f"{type(error).__name__}: {error}"
    made.ended_at = time.monotonic()


def judge(
    made: Sequence[Made],
    undisturbed: Sequence[str],
    services: Sequence[Replica],
    faults: FaultLoop,
    further_lines: Iterable[dict[str, Any]] = (),
) -> dict[str, Any]:
    """Compare generations with undisturbed ones, and with the logs of the services.

    `further_lines` are log lines of other processes.
    """
    ended = [line for service in services for line in service.find_lines("generation_ended")]
    internal = [line for service in services for line in service.find_lines("internal_error")]
    internal += [line for line in further_lines if line["event"] == "internal_error"]
    works = Counter(
        line["generation_id"]
        for line in ended
        if line["state"] == "completed" and line["cache"] != "hit"
    )
    spared = [each for each in made if not faults.has_met(each.began_at, each.ended_at)]
    needless = [each.name for each in spared if works[each.name] > 1 or each.restart_count]
    wrong = [each.name for each in made if each.sha256 != undisturbed[each.seed]]
    return {
        "generations": len(made),
        "lost": [f"{each.name}: {each.error}" for each in made if each.error],
        "wrong_or_lost": len(wrong),
        "made": sum(works.values()),
        "made_twice": sum(works[each.name] > 1 for each in made),
        "repeated_without_a_fault": needless,
        "internal_errors": internal,
        "faults": dict(faults.counts),
        "longest_s": round(max(each.ended_at - each.began_at for each in made), 1),
        "longest_without_a_new_event_s": round(max(each.silence_s for each in made), 1),
        "is_intact": not wrong and not needless and not internal,
    }
