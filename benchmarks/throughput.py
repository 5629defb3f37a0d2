"""Throughput: pictures per second of clients that always have one under way.

The service against what one would write without it, on the same requests: short and long ones,
with guidance and without. The ways take turns, and each is compared with the plain pipeline,
called for one request after another, of the same round.
"""

import asyncio
import copy
import functools
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safelight import AsyncClient

from benchmarks.overhead import SETTLE_S, load_bare_pipeline
from benchmarks.report import Spread, write_report
from tests.running_service import run_service

ROUNDS = 3
CONCURRENCIES = (1, 2, 4, 8, 16)
PEER_CONCURRENCY = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What one client asks for."""

    steps: int
    guidance_scale: float
    seed: int


REQUESTS = tuple(
    Request(steps, guidance_scale, seed)
    for seed, (steps, guidance_scale) in enumerate(
        [(20, 4.0), (10, 4.0), (30, 4.0), (20, 1.0), (15, 6.0), (25, 4.0), (20, 4.0), (12, 1.0)] * 2
    )
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Pictures per second, and their ratio to those of plain calls in the same round."""

    per_s: Spread
    ratio: Spread


def main() -> None:
    """Measure, print and write."""
    pipeline = load_bare_pipeline()
    ways: dict[str, Callable[[], None]] = {
        "plain calls, one after another": lambda: run_plain(pipeline),
        f"{PEER_CONCURRENCY} threads and a lock": lambda: run_behind_lock(pipeline),
        f"{PEER_CONCURRENCY} threads and shallow copies": lambda: run_copies(pipeline),
    }
    with run_service(batching="{}") as service:
        for concurrency in CONCURRENCIES:
            ways[f"the service, {concurrency} at once"] = functools.partial(
                run_service_calls, service.target, concurrency
            )
        rates = compare(ways)
    base = next(iter(rates.values()))
    figures = {
        name: Figure(Spread.of(each), Spread.of_ratios(each, base)) for name, each in rates.items()
    }
    print(f"{len(REQUESTS)} pictures, 128 x 128, 10 to 30 steps  per s   ratio")
    for name, figure in figures.items():
        print(f"{name:<42}{figure.per_s.median:>7.2f}   {figure.ratio}")
    write_report("throughput", {name: asdict(figure) for name, figure in figures.items()})


def compare(ways: dict[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Pictures per second of each way, round by round, after a round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(ROUNDS + 1):
        for name, way in ways.items():
            time.sleep(SETTLE_S)
            begun_at = time.perf_counter()
            way()
            if round_:
                rates[name].append(len(REQUESTS) / (time.perf_counter() - begun_at))
    return rates


def run_plain(pipeline: Any) -> None:
    """Call the pipeline as its documentation does."""
    for request in REQUESTS:
        draw(pipeline, request)


def run_behind_lock(pipeline: Any) -> None:
    """Share one pipeline among threads, one call at a time."""
    lock = threading.Lock()

    def call(request: Request) -> None:
        with lock:
            draw(pipeline, request)

    with ThreadPoolExecutor(PEER_CONCURRENCY) as threads:
        list(threads.map(call, REQUESTS))


def run_copies(pipeline: Any) -> None:
    """Give each call a shallow copy of the pipeline and a scheduler of its own, all at once."""

    def call(request: Request) -> None:
        duplicate = copy.copy(pipeline)
        duplicate.scheduler = copy.deepcopy(pipeline.scheduler)
        draw(duplicate, request)

    with ThreadPoolExecutor(PEER_CONCURRENCY) as threads:
        list(threads.map(call, REQUESTS))


def run_service_calls(target: str, concurrency: int) -> None:
    """Keep so many calls of the service under way."""
    asyncio.run(_call_service(target, concurrency))


async def _call_service(target: str, concurrency: int) -> None:
    waiting = list(reversed(REQUESTS))

    async def work(client: AsyncClient) -> None:
        while waiting:
            request = waiting.pop()
            await client.text_to_image(
                "a red circle",
                num_inference_steps=request.steps,
                guidance_scale=request.guidance_scale,
                seed=request.seed,
            )

    async with AsyncClient(target) as client:
        await asyncio.gather(*(work(client) for _ in range(concurrency)))


def draw(pipeline: Any, request: Request) -> None:
    """Make one picture and compress it."""
    picture = pipeline(
        "a red circle",
        num_inference_steps=request.steps,
        guidance_scale=request.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(request.seed),
    ).images[0]
    picture.save(io.BytesIO(), "PNG")


if __name__ == "__main__":
    main()
