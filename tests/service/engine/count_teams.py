"""Makes a picture in a fresh process, and prints how many teams of OpenMP threads it has then."""

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
"""So large a team cannot be taken for anything else."""


def count_native_threads() -> int:
    """Count the threads of which Python knows nothing."""
    return len(list(Path("/proc/self/task").iterdir())) - threading.active_count()


async def main() -> None:
    """Load the embedded model, and draw at a size at which copying is worth a team to torch."""
    # Makes a pool of its own, for what is not OpenMP.
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
