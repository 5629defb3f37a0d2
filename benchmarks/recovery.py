"""Recovery: engines killed at random steps, and the cost of the logs that let others continue.

Prints, of KILLS generations whose engine was killed, how many ended with the same bytes as an
undisturbed one, and how many forwards were made twice. Then two engines, with and without
logs, take turns on the same generations; processor time is that of the process.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.harness.report import compare, take_turns, write_report
from safelight_service.app import make_engine
from safelight_service.core.backend import Backend
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.settings import BatchingSettings, RecoverySettings, Settings
from support.fleet.kills import open_killing
from support.running_service import prepare_services

KILLS = 100
STEPS = 20
ROUNDS = 20
CONCURRENCIES = (1, 8)
REQUEST = GenerationRequest(
    "a red circle above a blue square",
    Parameters(num_inference_steps=STEPS, seed=0),
    waits_for_model=True,
    run_key="a run",
)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=KILLS, help="generations to interrupt")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each engine")
    arguments = parser.parse_args()
    prepare_services()
    figures: dict[str, object] = {"kills": asyncio.run(kill(arguments.kills))}
    for concurrency in CONCURRENCIES:
        figures[f"cost of logs, {concurrency} at once"] = compare_costs(
            concurrency, arguments.rounds
        )
    write_report("recovery", figures)


async def kill(count: int) -> dict[str, object]:
    """Kill the engines of `count` generations at random moments, one after another."""
    chosen = random.Random(0)
    equal, made_again, recovered = 0, Counter[int](), Counter[int]()
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            torch_threads=1,
            batching=BatchingSettings(max_width=1),
            recovery=RecoverySettings(folder=Path(folder)),
        )
        async with open_killing(settings, "shapes") as killing:
            for number in range(count):
                seeded = replace(REQUEST.parameters, seed=number)
                request = replace(REQUEST, parameters=seeded, run_key=str(number))
                undisturbed = await killing.generate(request)
                again = await killing.generate(
                    request, chosen.randint(1, STEPS - 1), delay_s=chosen.uniform(0, 0.03)
                )
                equal += again.digests == undisturbed.digests
                made_again[again.forward_count - undisturbed.forward_count] += 1
                recovered[again.recovered_step_count] += 1
    figures = {
        "generations": count,
        "equal bytes": equal,
        "generations by forwards made twice": dict(sorted(made_again.items())),
        "steps recovered": sum(steps * times for steps, times in recovered.items()),
    }
    for name, figure in figures.items():
        print(f"{name:<36}{figure}")
    return figures


def compare_costs(concurrency: int, rounds: int) -> dict[str, object]:
    """Compare the processor time of an image with and without logs, at a concurrency."""

    async def measure() -> dict[str, list[float]]:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            plain = Settings(torch_threads=1, batching=BatchingSettings(max_width=8))
            logging = plain.model_copy(update={"recovery": RecoverySettings(folder=folder)})
            engines = {"without": make_engine(plain), "with": make_engine(logging)}
            for engine in engines.values():
                await engine.start()
                stack.push_async_callback(engine.close)
            loop = asyncio.get_running_loop()

            def way(engine: Backend) -> Callable[[], float]:
                def run() -> float:
                    return asyncio.run_coroutine_threadsafe(
                        _processor_ms(engine, concurrency), loop
                    ).result()

                return run

            ways = {name: way(engine) for name, engine in engines.items()}
            return await asyncio.to_thread(take_turns, ways, rounds)

    figures = compare(asyncio.run(measure()))
    print(f"processor time of an image in ms, {concurrency} at once")
    for name, figure in figures.items():
        print(f"  {name:<10}{figure.measured.median:>8.2f}   {figure.ratio}")
    return {name: asdict(figure) for name, figure in figures.items()}


async def _processor_ms(engine: Backend, concurrency: int) -> float:
    """Return the processor time of an image, of eight."""
    begun_at = time.process_time()
    waiting = iter(range(8))

    async def call() -> None:
        for number in waiting:
            request = replace(REQUEST, run_key=str(number))
            async with engine.prepare(request, lambda _: None, Timeline()) as prepared:
                await engine.run(prepared, lambda _: None)

    await asyncio.gather(*(call() for _ in range(concurrency)))
    return (time.process_time() - begun_at) * 1e3 / 8


if __name__ == "__main__":
    main()
