"""Engine with a model that uses graphs, in its own process: `FOLDER CACHE` as arguments.

Prints JSON: the graphs compiled until the engine was ready and until its end, those from the cache,
and the difference of the images from those without graphs.
"""

import asyncio
import json
import sys
import warnings
from pathlib import Path

from torch._dynamo.utils import counters

from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.engine import Engine
from safelight_service.settings import (
    AccelerationSettings,
    BatchingSettings,
    DefaultSettings,
    ModelSettings,
    Settings,
)
from support.engine.job_runs import SMALL, collect, difference, images_of, pixels_of


async def main(folder: str, cache: Path) -> None:
    """Start the engine, and draw with and without guidance: two rows, and one row padded to two."""
    plain = ModelSettings(name="plain", source=folder, device="cpu", warm_up=False)
    size = DefaultSettings(width=SMALL["width"], height=SMALL["height"])
    changes = {
        "name": "graphs",
        "warm_up": True,
        "acceleration": AccelerationSettings(compile="graphs"),
        "defaults": size,
    }
    engine = Engine(
        Settings(
            models=(plain.model_copy(update=changes), plain),
            batching=BatchingSettings(max_width=1, profiles_file=None),
            compile_cache=cache,
            torch_threads=1,
        )
    )
    await engine.start()
    ready_count = counters["stats"]["unique_graphs"]
    differences = []
    for guidance_scale in (1.0, 5.0):
        parameters = Parameters(**SMALL, guidance_scale=guidance_scale)
        pictures = [
            images_of(await collect(engine, GenerationRequest("x", parameters, model=name)))
            for name in ("graphs", "plain")
        ]
        differences.append(difference(*(pixels_of(image) for [image] in pictures)))
    await engine.close()
    found = {
        "ready": ready_count,
        "end": counters["stats"]["unique_graphs"],
        "cached": counters["inductor"]["fxgraph_cache_hit"],
        "differences": differences,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "`torch.jit.script_method` is deprecated")  # by torch itself
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
