"""Fairness: what tenants get of one device beside another that asks for ten times its share.

Nothing is merged, so the device makes one step at a time, and each tenant's work runs by arrival.
Device seconds are those of the engine's own forwards.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

from benchmarks.harness.report import Percentiles, write_report
from safelight_service.core.errors import QueueFullError
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.settings import BatchingSettings
from support.engine.device_time import MeasuredEngine, open_measured_engine

STEPS = 10
OTHERS = ("b", "c", "d", "e")
LOAD = 0.6
"""Load that each of the others offers, as a part of its share of the device."""
EXCESS = 10
"""Load that the greedy tenant offers, in shares."""
QUEUE_SIZE = 40
WEIGHTS = (1.0, 2.0, 4.0)
LOOPS = (1, 2, 8, 16)
"""Calls at a time of each backlogged tenant; their step counts differ, too."""
OWN = "a device of their own, slower by their share"
TOGETHER = "one tenant for all"
EACH = "a tenant each"
EQUAL = "equal weights"
WEIGHTED = "weights 1:2:4"
MOST_P99 = 1.1
"""Goal for the others' 99th percentile, in multiples of that on a device of their own."""
LEAST_INDEX = 0.98
"""Goal for Jain's index of tenants of equal weights."""
MOST_DEVIATION = 0.05
"""Goal for the deviation of a tenant's share of the device from its weight's."""


@dataclass(frozen=True, slots=True)
class Service:
    """Share of the others' calls that were served, and the seconds of these."""

    served: float
    seconds: Percentiles


@dataclass(frozen=True, slots=True)
class Shares:
    """Device seconds of backlogged tenants, and Jain's index of those seconds by weight.

    The index is 1 if all have the same, and 1/n if one of n has everything.
    """

    seconds: Sequence[float]
    index: float

    @classmethod
    def of(cls, seconds: Sequence[float], weights: Sequence[float]) -> "Shares":
        """Summarise device seconds."""
        each = [s / w for s, w in zip(seconds, weights, strict=True)]
        return cls(seconds, sum(each) ** 2 / (len(each) * sum(s * s for s in each)))

    def deviate(self, weights: Sequence[float]) -> float:
        """Return the largest deviation of a share from that of its weight, as a part of it."""
        unit = sum(self.seconds) / sum(weights)
        return max(abs(s / w / unit - 1) for s, w in zip(self.seconds, weights, strict=True))


@dataclass(frozen=True, slots=True)
class Verdict:
    """A measured value and the goal for it."""

    name: str
    measured: float
    goal: float
    is_met: bool

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        return f"{self.name:<60}{self.measured:>8.3f}, goal {self.goal:g}: {verdict}"


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement")
    parser.add_argument("--rehearse", action="store_true", help="try it briefly, and save nothing")
    arguments = parser.parse_args()
    served, shares = asyncio.run(measure(3.0 if arguments.rehearse else arguments.seconds))
    print(
        f"one tenant asks for {EXCESS} shares; the others' calls{'served':>12}{'p50':>8}{'p99':>8}"
    )
    for name, service in served.items():
        latency = service.seconds
        print(f"{name:<52}{service.served:>8.0%}{latency.p50:>8.2f}{latency.p99:>8.2f}")
    for name, share in shares.items():
        seconds_each = ", ".join(f"{each:.2f}" for each in share.seconds)
        print(f"{name}: device seconds {seconds_each}; Jain's index {share.index:.4f}")
    verdicts = judge(served, shares)
    for verdict in verdicts:
        print(verdict)
    if not arguments.rehearse:
        write_report(
            "fairness",
            {name: asdict(each) for name, each in served.items()}
            | {name: asdict(each) for name, each in shares.items()}
            | {"goals": [asdict(verdict) for verdict in verdicts]},
        )


def judge(served: Mapping[str, Service], shares: Mapping[str, Shares]) -> list[Verdict]:
    """Compare the figures with the goals."""
    ratio = served[EACH].seconds.p99 / served[OWN].seconds.p99
    index = shares[EQUAL].index
    deviation = shares[WEIGHTED].deviate(WEIGHTS)
    return [
        Verdict(
            "others' p99, by that on a device of their own", ratio, MOST_P99, ratio <= MOST_P99
        ),
        Verdict("Jain's index, equal weights", index, LEAST_INDEX, index >= LEAST_INDEX),
        Verdict(
            "largest deviation from a share, weights 1:2:4",
            deviation,
            MOST_DEVIATION,
            deviation <= MOST_DEVIATION,
        ),
    ]


async def measure(seconds: float) -> tuple[dict[str, Service], dict[str, Shares]]:
    """Make all measurements on one engine."""
    batching = BatchingSettings(max_width=1, order="first_come", profiles_file=None)
    async with open_measured_engine(QUEUE_SIZE, batching) as measured:
        alone_s = await measure_alone(measured)
        arrivals = [draw_arrivals(alone_s, seconds, seed) for seed in range(len(OTHERS))]
        served = {
            OWN: expect(arrivals, alone_s),
            TOGETHER: await flood(measured, arrivals, alone_s, lambda _: NO_TENANT),
            EACH: await flood(measured, arrivals, alone_s, Tenant),
        }
        equal = [1.0] * len(LOOPS)
        shares = {
            EQUAL: await share(measured, seconds, equal, LOOPS),
            WEIGHTED: await share(measured, seconds, WEIGHTS, [4] * len(WEIGHTS)),
        }
    return served, shares


async def measure_alone(measured: MeasuredEngine) -> float:
    """Return the seconds of an image on an idle device."""
    await measured.generate(NO_TENANT, STEPS)
    begun_at = time.perf_counter()
    for _ in range(10):
        await measured.generate(NO_TENANT, STEPS)
    return (time.perf_counter() - begun_at) / 10


def draw_arrivals(alone_s: float, seconds: float, seed: int) -> list[float]:
    """Draw the moments of a tenant's calls, which arrive at random."""
    rng = random.Random(seed)
    mean_s = alone_s * (len(OTHERS) + 1) / LOAD
    arrivals, now = [0.0], 0.0
    while (now := now + rng.expovariate(1 / mean_s)) < seconds:
        arrivals.append(now)
    return arrivals


def expect(arrivals: Sequence[Sequence[float]], alone_s: float) -> Service:
    """Return what each tenant would get of a device of its own that is as slow as its share."""
    taken = []
    for each in arrivals:
        free_at = 0.0
        for at in each:
            free_at = max(free_at, at) + alone_s * (len(OTHERS) + 1)
            taken.append(free_at - at)
    return Service(1.0, Percentiles.of(taken))


async def flood(
    measured: MeasuredEngine,
    arrivals: Sequence[Sequence[float]],
    alone_s: float,
    make_tenant: Callable[[str], Tenant],
) -> Service:
    """Call as each of the others while one more calls too often; return the others' service."""
    taken: list[float | None] = []

    async def call(name: str, at_s: float) -> None:
        await asyncio.sleep(at_s)
        begun_at = time.perf_counter()
        try:
            await measured.generate(make_tenant(name), STEPS)
        except QueueFullError:
            taken.append(None)
        else:
            taken.append(time.perf_counter() - begun_at)

    async def be_greedy() -> None:
        interval_s = alone_s * (len(OTHERS) + 1) / EXCESS
        async with asyncio.TaskGroup() as group:
            while True:
                group.create_task(call_greedily())
                await asyncio.sleep(interval_s)

    async def call_greedily() -> None:
        with suppress(QueueFullError):
            await measured.generate(make_tenant("greedy"), STEPS)

    greedy = asyncio.create_task(be_greedy())
    async with asyncio.TaskGroup() as group:
        for name, each in zip(OTHERS, arrivals, strict=True):
            for at_s in each:
                group.create_task(call(name, at_s))
    await cancel(greedy)
    done = [each for each in taken if each is not None]
    return Service(len(done) / len(taken), Percentiles.of(done if len(done) > 1 else [0.0, 0.0]))


async def share(
    measured: MeasuredEngine, seconds: float, weights: Sequence[float], loops: Sequence[int]
) -> Shares:
    """Keep all tenants backlogged for a time; return their device seconds."""
    tenants = [Tenant(f"{number}", weight) for number, weight in enumerate(weights)]

    async def call(tenant: Tenant, steps: int) -> None:
        while True:
            await measured.generate(tenant, steps)

    before = [measured.used_s(tenant) for tenant in tenants]
    calls = [
        asyncio.create_task(call(tenant, STEPS * (number + 1)))
        for number, (tenant, count) in enumerate(zip(tenants, loops, strict=True))
        for _ in range(count)
    ]
    await asyncio.sleep(seconds)
    used = [measured.used_s(tenant) - begin for tenant, begin in zip(tenants, before, strict=True)]
    for each in calls:
        await cancel(each)
    return Shares.of(used, weights)


async def cancel(task: asyncio.Task[None]) -> None:
    """Cancel a task, and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


if __name__ == "__main__":
    main()
