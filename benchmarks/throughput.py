"""Throughput: images per second for clients that call without a pause.

Compares the service with the usual ways to call a pipeline directly, on the same requests: short
and long ones, with and without guidance.
"""

import asyncio
import functools
import itertools
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass

from safelight import AsyncClient

from benchmarks.harness.bare import (
    BATCH,
    PROMPT,
    THREADS,
    Draw,
    Request,
    Requests,
    draw_behind_a_lock,
    draw_in_batches,
    draw_one_after_another,
    draw_with_copies,
    run_bare_pipeline,
)
from benchmarks.harness.report import Comparison, compare, take_turns, timed, write_report
from support.running_service import run_service

PLAIN = "plain calls, one after another"
ROUNDS = 8
ROUNDS_ALONE = 16
"""Rounds for one call at once against plain calls, which differ little and need more rounds."""

Mix = tuple[tuple[int, float], ...]
"""Steps and guidance scales of the requests."""

MIX: Mix = ((20, 4.0), (10, 4.0), (30, 4.0), (20, 1.0), (15, 6.0), (25, 4.0), (20, 4.0), (12, 1.0))
FEW_STEPS: Mix = ((4, 4.0), (2, 4.0), (1, 4.0), (4, 1.0)) * 6
"""Requests to distilled models, which need few steps."""

EQUAL: Mix = ((20, 4.0),) * 2 * BATCH
"""Requests that differ only in their seeds, as static batches require."""


@dataclass(frozen=True, slots=True)
class Case:
    """Requests of one size, and the numbers of simultaneous calls to measure besides one."""

    size: int
    concurrencies: tuple[int, ...]
    mix: Mix = MIX

    def __str__(self) -> str:
        steps = [steps for steps, _ in self.mix]
        if self.is_equal:
            return f"{self.size} x {self.size}, {steps[0]} steps each"
        return f"{self.size} x {self.size}, {min(steps)} to {max(steps)} steps"

    @property
    def is_equal(self) -> bool:
        """Whether all requests are equal but for their seeds."""
        return len(set(self.mix)) == 1

    @property
    def requests(self) -> Requests:
        """The requests, each with its own seed."""
        return [Request(*each, seed, self.size) for seed, each in enumerate(self.mix)]


USUAL = Case(128, (2, 4, 8, 16))
CASES = (Case(64, (8,)), USUAL, Case(256, (8,)), Case(128, (8,), FEW_STEPS), Case(128, (8,), EQUAL))


def main() -> None:
    """Measure, print and save. Numbers as arguments choose cases, which are not saved."""
    chosen = [CASES[int(number)] for number in sys.argv[1:]]
    figures = {str(case): measure(case) for case in chosen or CASES}
    report(figures)
    if not chosen:
        write(figures)


def measure(case: Case) -> dict[str, Comparison]:
    """Compare all ways to make the images of a case."""
    with run_bare_pipeline() as bare, run_service(batching="{}") as service:

        def serve(*concurrencies: int) -> dict[str, Callable[[], float]]:
            return {
                f"the service, {concurrency} at once": functools.partial(
                    rate_service, service.target, concurrency, case.requests
                )
                for concurrency in concurrencies
            }

        requests = case.requests
        plain = {PLAIN: rate(bare(draw_one_after_another), requests)}
        threads = {
            f"{THREADS} threads and a lock": rate(bare(draw_behind_a_lock), requests),
            f"{THREADS} threads and shallow copies": rate(bare(draw_with_copies), requests),
        }
        if case.is_equal:
            threads[f"static batches of {BATCH}"] = rate(bare(draw_in_batches), requests)
        alone = compare(take_turns(plain | serve(1), ROUNDS_ALONE))
        together = plain | threads | serve(*case.concurrencies)
        return alone | compare(take_turns(together, ROUNDS))


def report(figures: Mapping[str, Mapping[str, Comparison]]) -> None:
    """Print the table."""
    print(f"{'images':<59}{'per s':>7}   ratio")
    for case, ways in figures.items():
        for name, figure in ways.items():
            print(f"{case:<28}{name:<31}{figure.measured.median:>7.2f}   {figure.ratio}")


def write(figures: Mapping[str, Mapping[str, Comparison]]) -> None:
    """Save the results."""
    write_report(
        "throughput",
        {
            case: {name: asdict(figure) for name, figure in ways.items()}
            for case, ways in figures.items()
        },
    )


def rate(draw: Draw, requests: Requests) -> Callable[[], float]:
    """Wrap a bare way into one that returns its images per second."""
    take = timed(functools.partial(draw, requests))
    return lambda: len(requests) / take()


def rate_service(target: str, concurrency: int, requests: Requests) -> float:
    """Return the images per second for `concurrency` clients that call without a pause.

    Each client gets an image before the count begins, and keeps calling after it has ended. So
    all clients are active throughout.
    """
    count = len(requests)

    async def run() -> float:
        finished_at = []
        async with aclosing(call_service(target, concurrency, itertools.cycle(requests))) as calls:
            async for _ in calls:
                finished_at.append(time.perf_counter())
                if len(finished_at) > concurrency + count:
                    break
        return count / (finished_at[-1] - finished_at[-1 - count])

    return asyncio.run(run())


async def call_service(
    target: str, concurrency: int, requests: Iterable[Request]
) -> AsyncGenerator[None]:
    """Keep `concurrency` calls under way; yield after each, and cancel the rest when closed."""
    waiting = iter(requests)
    async with AsyncClient(target) as client:

        def call_next(count: int) -> set[asyncio.Task[object]]:
            return {
                asyncio.create_task(
                    client.text_to_image(
                        PROMPT,
                        num_inference_steps=request.steps,
                        guidance_scale=request.guidance_scale,
                        width=request.size,
                        height=request.size,
                        seed=request.seed,
                    )
                )
                for request in itertools.islice(waiting, count)
            }

        running = call_next(concurrency)
        try:
            while running:
                ended, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                running |= call_next(len(ended))
                for call in ended:
                    call.result()
                    yield
        finally:
            for call in running:
                call.cancel()
            await asyncio.gather(*running, return_exceptions=True)


if __name__ == "__main__":
    main()
