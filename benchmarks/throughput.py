"""Throughput: pictures per second of clients that always have one under way.

The service against what one would write without it, on the same requests: short and long ones,
with guidance and without.
"""

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
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
from benchmarks.report import Comparison, compare, take_turns, timed, write_report
from tests.running_service import run_service

PLAIN = "plain calls, one after another"
CONCURRENCIES = {64: (8,), 128: (2, 4, 8, 16), 256: (8,)}
"""Calls of the service at once, besides one, by width and height."""

ROUNDS = 8
ROUNDS_ALONE = 16
"""One call at once differs from plain calls by little: those two have short rounds of their own."""

MIX = ((20, 4.0), (10, 4.0), (30, 4.0), (20, 1.0), (15, 6.0), (25, 4.0), (20, 4.0), (12, 1.0))
"""Steps and guidance scales of the requests."""


def main() -> None:
    """Measure, print and write."""
    report({f"{size} x {size}": measure(size) for size in CONCURRENCIES})


def measure(size: int) -> dict[str, Comparison]:
    """Compare all ways to make pictures of that width and height."""
    with run_bare_pipeline() as bare, run_service(batching="{}") as service:

        def serve(*concurrencies: int) -> dict[str, Callable[[], float]]:
            return {
                f"the service, {concurrency} at once": functools.partial(
                    rate_service, service.target, concurrency, size
                )
                for concurrency in concurrencies
            }

        plain = {PLAIN: rate(bare(draw_one_after_another), size)}
        threads = {
            f"{THREADS} threads and a lock": rate(bare(draw_behind_a_lock), size),
            f"{THREADS} threads and shallow copies": rate(bare(draw_with_copies), size),
        }
        alone = compare(take_turns(plain | serve(1), ROUNDS_ALONE))
        together = plain | threads | serve(*CONCURRENCIES[size])
        return alone | compare(take_turns(together, ROUNDS))


def report(figures: Mapping[str, Mapping[str, Comparison]]) -> None:
    """Print the table and write the results."""
    print(f"{'pictures, 10 to 30 steps':<42}{'per s':>7}   ratio")
    for size, ways in figures.items():
        for name, figure in ways.items():
            print(f"{size:<11}{name:<31}{figure.measured.median:>7.2f}   {figure.ratio}")
    write_report(
        "throughput",
        {
            size: {name: asdict(figure) for name, figure in ways.items()}
            for size, ways in figures.items()
        },
    )


def mix(size: int = 128) -> Requests:
    """The mix of requests."""
    return [Request(*each, seed, size) for seed, each in enumerate(MIX)]


def rate(draw: Draw, size: int) -> Callable[[], float]:
    """Return what measures pictures per second where calls do not help each other."""
    requests = mix(size)
    take = timed(functools.partial(draw, requests))
    return lambda: len(requests) / take()


def rate_service(target: str, concurrency: int, size: int) -> float:
    """Return the pictures per second of so many clients that call without a pause.

    Before those that count, each client has had one, and after them the clients go on, so all
    of them are there all the time.
    """
    count = len(MIX)

    async def run() -> float:
        finished_at = []
        async with aclosing(call_service(target, concurrency, itertools.cycle(mix(size)))) as calls:
            async for _ in calls:
                finished_at.append(time.perf_counter())
                if len(finished_at) > concurrency + count:
                    break
        return count / (finished_at[-1] - finished_at[-1 - count])

    return asyncio.run(run())


async def call_service(
    target: str, concurrency: int, requests: Iterable[Request]
) -> AsyncGenerator[None]:
    """Keep so many calls of the service under way; yield after each, and cancel when closed."""
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
