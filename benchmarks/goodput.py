"""Goodput: the share of calls that end in time, by scheduling order and load.

The limit of a call is three times its own time on an idle service. A load is a share of the rate
at which the service ends calls of the same mix for clients that never pause. All orders get the
same calls at the same moments. In a second part, callers send their limit as the deadline, and
the service ends calls that cannot meet it.
"""

import argparse
import asyncio
import itertools
import math
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from safelight import (
    AsyncClient,
    DeadlineExceededError,
    Progress,
    ResourceExhaustedError,
    TextToImageOptions,
)

from benchmarks.harness.report import write_report
from support.running_service import run_service

SIZES, SIZE_WEIGHTS = (64, 128, 256), (1, 2, 1)
STEPS, STEP_WEIGHTS = (5, 10, 20, 60), (4, 3, 2, 1)
LARGE_SHARE = 0.03
LARGE_SIZE, LARGE_STEPS = 256, 120
LIMIT = 3.0
"""Time that a call may take, in multiples of its time alone."""
GOALS = {0.9: 0.95, 1.4: 0.80}
"""Share of calls in time, by load."""
CLIENTS = 16
"""Clients that call without a pause while the capacity is measured."""
ORDERS = ("first_come", "shortest_remaining")
PROMPT = "a red circle"
ROUNDS = 3
"""Calls alone of each kind, of which the median counts."""
QUEUE_SIZE = "1000"
DEADLINES = ", deadlines"
"""Ends the names of runs in which callers send deadlines."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call, and its start in seconds after the first one."""

    at_s: float
    size: int
    steps: int

    @property
    def options(self) -> TextToImageOptions:
        """Arguments of the client's methods."""
        return {
            "width": self.size,
            "height": self.size,
            "num_inference_steps": self.steps,
            "seed": 0,
        }

    @property
    def is_large(self) -> bool:
        """Whether it needs more work than any usual call."""
        return self.steps == LARGE_STEPS


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of a call on an idle service: a part for the call, and one for each step."""

    call_s: Mapping[int, float]
    step_s: Mapping[int, float]

    def alone_s(self, call: Call) -> float:
        """Return the seconds of a call alone."""
        return self.call_s[call.size] + call.steps * self.step_s[call.size]


@dataclass(frozen=True, slots=True)
class Goodput:
    """Service that the calls of a run got; seconds count from the moment of a call."""

    calls: int
    in_time: float
    large_calls: int
    large_in_time: float
    ended_early: float
    """Share of the calls that the service refused or ended before their images."""
    longest_s: float
    """Longest time until an image."""
    slowdown_p50: float
    """Median of the time of images, in multiples of the time alone."""
    slowdown_p95: float

    @classmethod
    def of(cls, calls: Sequence[Call], taken: Sequence[float | None], costs: Costs) -> "Goodput":
        """Summarise the seconds of calls, None for those without an image."""
        ends = [(call, taken_s) for call, taken_s in zip(calls, taken, strict=True)]
        slowdowns = [(c, s / costs.alone_s(c)) for c, s in ends if s is not None]
        # A brief rehearsal may have fewer images than quantiles need.
        known = [s for _, s in slowdowns] or [math.inf]
        cuts = statistics.quantiles(known * 2, n=20, method="inclusive")
        large_count = sum(call.is_large for call in calls)
        large_in_time = sum(slowdown <= LIMIT for call, slowdown in slowdowns if call.is_large)
        return cls(
            calls=len(calls),
            in_time=sum(slowdown <= LIMIT for _, slowdown in slowdowns) / len(calls),
            large_calls=large_count,
            large_in_time=large_in_time / max(1, large_count),
            ended_early=1 - len(slowdowns) / len(calls),
            longest_s=max((s for s in taken if s is not None), default=math.inf),
            slowdown_p50=cuts[9],
            slowdown_p95=cuts[18],
        )


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="in which calls arrive")
    parser.add_argument("--rehearse", action="store_true", help="try it briefly, and save nothing")
    parser.add_argument("--orders", nargs="+", default=ORDERS, help="orders to compare")
    arguments = parser.parse_args()
    seconds, rounds = (2.0, 1) if arguments.rehearse else (arguments.seconds, ROUNDS)
    capacity, figures = measure(seconds, arguments.orders, rounds)
    print(f"capacity with {CLIENTS} clients: {capacity:.2f} calls/s; {seconds:g} s for each row")
    print(
        f"{'':<42}{'calls':>5}{'in time':>9}{'goal':>6}{'':>8}{'large':>6}{'in time':>9}"
        f"{'longest':>9}{'slowdown p50':>14}{'p95':>6}{'ended':>7}"
    )
    for name, orders in figures.items():
        goal = GOALS[float(name.removesuffix(DEADLINES).removeprefix("load "))]
        for order, figure in orders.items():
            verdict = "met" if figure.in_time >= goal else "MISSED"
            print(
                f"{f'{name}, {order}':<42}{figure.calls:>5}{figure.in_time:>9.0%}{goal:>6.0%}"
                f"{verdict:>8}{figure.large_calls:>6}{figure.large_in_time:>9.0%}"
                f"{figure.longest_s:>9.1f}{figure.slowdown_p50:>14.1f}{figure.slowdown_p95:>6.1f}"
                f"{figure.ended_early:>7.0%}"
            )
    if not arguments.rehearse:
        write_report(
            "goodput",
            {"capacity": capacity, "seconds": seconds, "clients": CLIENTS}
            | {
                name: {order: asdict(figure) for order, figure in orders.items()}
                for name, orders in figures.items()
            },
        )


def measure(
    seconds: float, orders: Sequence[str], rounds: int = ROUNDS
) -> tuple[float, Mapping[str, Mapping[str, Goodput]]]:
    """Return the capacity in calls per second, and the goodput by load and order.

    `rounds` calls of each kind alone measure the costs.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        profiles = folder / "profiles.json"
        with run_service(
            torch_threads="1", batching=f'{{"profiles_file": "{profiles}"}}'
        ) as service:
            costs = asyncio.run(measure_alone(service.target, rounds))
            asyncio.run(measure_capacity(service.target, seconds / 4, costs))  # learns the widths
            capacity = asyncio.run(measure_capacity(service.target, seconds / 2, costs))
        targets = {}
        for order in orders:
            copied = folder / f"{order}.json"
            shutil.copy(profiles, copied)
            batching = f'{{"order": "{order}", "profiles_file": "{copied}"}}'
            service = stack.enter_context(
                run_service(torch_threads="1", batching=batching, queue_size=QUEUE_SIZE)
            )
            asyncio.run(measure_alone(service.target, rounds))  # the service learns costs
            targets[order] = service.target
        figures: dict[str, dict[str, Goodput]] = {}
        for has_deadlines, (seed, load) in itertools.product((False, True), enumerate(GOALS)):
            name = name_run(load, DEADLINES if has_deadlines else "")
            calls = draw_calls(capacity * load, seconds, seed)
            figures[name] = {}
            for order, target in targets.items():
                taken = asyncio.run(run(target, calls, costs, has_deadlines=has_deadlines))
                figures[name][order] = Goodput.of(calls, taken, costs)
    return capacity, figures


def name_run(load: float, suffix: str) -> str:
    """Return the name of a run among the figures."""
    return f"load {load}{suffix}"


async def measure_alone(target: str, rounds: int) -> Costs:
    """Measure calls with few and with many steps on an idle service."""
    few, many = min(STEPS), max(STEPS)
    call_s, step_s = {}, {}
    async with AsyncClient(target) as client:

        async def take(size: int, steps: int) -> float:
            taken = []
            for _ in range(rounds):
                begun_at = time.perf_counter()
                await make(client, Call(0.0, size, steps))
                taken.append(time.perf_counter() - begun_at)
            return statistics.median(taken)

        for size in SIZES:
            short, long = await take(size, few), await take(size, many)
            step_s[size] = (long - short) / (many - few)
            call_s[size] = max(0.0, short - few * step_s[size])
    return Costs(call_s, step_s)


async def measure_capacity(target: str, seconds: float, costs: Costs) -> float:
    """Return the calls per second that the service ends while clients call without a pause.

    Counts steps, by their seconds alone: few calls make most of the work.
    """
    rng = random.Random(0)
    mix = draw_mix(rng)
    mean_s = statistics.fmean(costs.alone_s(call) for call in itertools.islice(mix, 10_000))
    work_s = 0.0
    async with AsyncClient(target) as client:

        async def call_on() -> None:
            nonlocal work_s
            while True:
                call = next(mix)
                made = 0
                async with client.generate(PROMPT, **call.options) as generation:
                    async for event in generation:
                        if isinstance(event, Progress):
                            work_s += (event.step - made) * costs.step_s[call.size]
                            made = event.step
                work_s += costs.call_s[call.size]

        callers = [asyncio.create_task(call_on()) for _ in range(CLIENTS)]
        await asyncio.sleep(seconds / 4)  # until all have joined
        before_s, begun_at = work_s, time.perf_counter()
        await asyncio.sleep(seconds)
        rate = (work_s - before_s) / (time.perf_counter() - begun_at) / mean_s
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    return rate


def draw_mix(rng: random.Random) -> Iterator[Call]:
    """Draw calls without end, all at the first moment."""
    while True:
        if rng.random() < LARGE_SHARE:
            yield Call(0.0, LARGE_SIZE, LARGE_STEPS)
        else:
            [size], [steps] = rng.choices(SIZES, SIZE_WEIGHTS), rng.choices(STEPS, STEP_WEIGHTS)
            yield Call(0.0, size, steps)


def draw_calls(rate: float, seconds: float, seed: int) -> list[Call]:
    """Draw calls that arrive at random, `rate` of them a second on average."""
    rng = random.Random(seed)
    calls, now = [], 0.0
    for call in draw_mix(rng):
        calls.append(Call(now, call.size, call.steps))
        now += rng.expovariate(rate)
        if now >= seconds:
            break
    return calls


async def run(
    target: str, calls: Sequence[Call], costs: Costs, *, has_deadlines: bool
) -> list[float | None]:
    """Start each call at its moment; return the seconds of each, None without an image."""
    async with AsyncClient(target) as client:
        begun_at = time.perf_counter()

        async def take(call: Call) -> float | None:
            limit_s = LIMIT * costs.alone_s(call) if has_deadlines else None
            await asyncio.sleep(call.at_s + begun_at - time.perf_counter())
            try:
                await make(client, call, limit_s)
            except (DeadlineExceededError, ResourceExhaustedError):
                return None
            return time.perf_counter() - begun_at - call.at_s

        return await asyncio.gather(*map(take, calls))


async def make(client: AsyncClient, call: Call, timeout_s: float | None = None) -> None:
    """Make one image."""
    options = call.options
    options["timeout"] = timeout_s
    await client.text_to_image(PROMPT, **options)


if __name__ == "__main__":
    main()
