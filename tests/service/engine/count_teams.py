"""Script that makes an image in a fresh process, and prints the number of its OpenMP teams."""

import asyncio
import sys
import threading
from pathlib import Path

import torch

from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.engine import Engine
from safelight_service.settings import Settings
from support.engine.job_runs import collect

THREADS = 65
"""Size of a team, larger than any other group of threads."""


def count_native_threads() -> int:
    """Count the threads that Python does not know."""
    return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()


async def main() -> None:
    """Load the embedded model, and draw at a size for which torch copies with a team."""
    # Starts its own thread pool, which is not OpenMP's.
    torch.set_num_threads(THREADS)
    before = count_native_threads()
    engine = Engine(Settings())
    await engine.start()
    parameters = Parameters(num_inference_steps=1, width=128, height=128)
    await collect(engine, GenerationRequest("a red circle", parameters))
    print((count_native_threads() - before) // (THREADS - 1), file=sys.stderr)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main())
