"""Recovery: engines killed at random steps, and the cost of the logs that let others continue.

Prints, of KILLS generations whose engine was killed, how many ended with the same bytes as an
undisturbed one, and how many forwards were made twice. Then two engines, with and without
logs, take turns on the same generations; processor time is that of the process.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from pathlib import Path

import torch

from benchmarks.harness.report import compare, take_turns, write_report
from safelight_service.app import make_engine
from safelight_service.core.backend import Backend
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.engine.operations import Forward
from safelight_service.engine.recovery.log_writer import LogWriter
from safelight_service.engine.recovery.run_logs import RunLog
from safelight_service.engine.recovery.stores import FolderStore
from safelight_service.settings import BatchingSettings, RecoverySettings, Settings
from support.fleet.kills import open_killing
from support.running_service import prepare_services

KILLS = 100
STEPS = 20
ROUNDS = 40
BATCHES = 50
ROOM_BYTES = 1 << 30
OUTPUT = (2, 12, 16, 16)
"""Shape of an output of the embedded model's denoiser, with guidance."""
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
    figures: dict[str, object] = {
        "kills": asyncio.run(kill(arguments.kills)),
        "record": measure_record(),
        "cost of a log": compare_costs(arguments.rounds),
    }
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


def compare_costs(rounds: int) -> dict[str, object]:
    """Compare the processor time of an image with and without a log."""

    async def measure() -> dict[str, list[float]]:
        async with AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            plain = Settings(torch_threads=1, batching=BatchingSettings(max_width=1))
            logging = plain.model_copy(update={"recovery": RecoverySettings(folder=folder)})
            engines = {"without": make_engine(plain), "with": make_engine(logging)}
            for engine in engines.values():
                await engine.start()
                stack.push_async_callback(engine.close)
            loop = asyncio.get_running_loop()

            def way(engine: Backend) -> Callable[[], float]:
                def run() -> float:
                    making = _processor_ms(engine)
                    return asyncio.run_coroutine_threadsafe(making, loop).result()

                return run

            ways = {name: way(engine) for name, engine in engines.items()}
            return await asyncio.to_thread(take_turns, ways, rounds)

    figures = compare(asyncio.run(measure()))
    print("processor time of an image in ms")
    for name, figure in figures.items():
        print(f"  {name:<10}{figure.measured.median:>8.2f}   {figure.ratio}")
    return {name: asdict(figure) for name, figure in figures.items()}


async def _processor_ms(engine: Backend) -> float:
    """Return the processor time of an image."""
    begun_at = time.process_time()
    async with engine.prepare(REQUEST, lambda _: None, Timeline()) as prepared:
        await engine.run(prepared, lambda _: None)
    return (time.process_time() - begun_at) * 1e3


def measure_record() -> dict[str, float]:
    """Return the processor time of logging a forward, all threads together, in milliseconds."""
    output = (torch.rand(OUTPUT),)
    forward = Forward({"sample": output[0], "timestep": torch.tensor(5)}, 1, None)
    taken = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(BATCHES):
            store, writer = FolderStore(Path(folder), 60, ROOM_BYTES), LogWriter(ROOM_BYTES)
            log = RunLog(["name"], [b""], store, writer, ROOM_BYTES)
            begun_at = time.process_time()
            for step in range(STEPS):
                log.images[0].write(forward, step, output, torch.device("cpu"))
            writer.close()
            taken.append((time.process_time() - begun_at) * 1e3 / STEPS)
    figures = {"processor time of a logged forward in ms": statistics.median(taken)}
    for name, figure in figures.items():
        print(f"{name:<44}{figure:.3f}")
    return figures


if __name__ == "__main__":
    main()
