"""Service: the whole service in its own process, and callers over gRPC."""

import asyncio
import os
import signal
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from safelight import AsyncClient, Completed, Timings

from benchmarks.gpu.engine_access import serve
from benchmarks.gpu.recorder import Recorder, describe_error
from benchmarks.gpu.session import Session


@dataclass(frozen=True, slots=True)
class Images:
    """Request for `count` images, shared among callers that get them one after another."""

    side_px: int
    steps: int
    callers: int
    count: int


@dataclass(slots=True)
class Served:
    """Measurements by the callers."""

    total_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    timings: list[Timings] = field(default_factory=list)
    """Timings of each image, as reported by the service."""
    widths: Counter[int] = field(default_factory=Counter)
    """Forwards by width, summed over the images; a shared one counts once for each image."""


@contextmanager
def run_service(
    session: Session, recorder: Recorder, architecture: str, acceleration: Mapping[str, object]
) -> Iterator[str]:
    """Run a service with random weights; yield its HOST:PORT once it accepts calls.

    Forks, so this process must not have used CUDA before.

    Raises:
        RuntimeError: the service did not start; the recorder has the reason.
    """
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        try:
            os.close(reader)
            serve(session, architecture, acceleration, writer)
        except BaseException as error:
            recorder.write("service", **describe_error(error))
            traceback.print_exc()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        with open(reader) as lines:
            address = lines.readline().strip()
        if not address:
            raise RuntimeError("the service did not start")
        yield address
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


class Callers:
    """Callers of a service that share one connection, which `with` closes."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._image_count = 0

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._connect())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def get(self, images: Images) -> Served:
        """Request images with new seeds; return when all have arrived.

        Raises:
            SafelightError: an image failed.
        """
        return self._runner.run(self._get(images))

    async def _connect(self) -> AsyncClient:
        return AsyncClient(self._target)

    async def _get(self, images: Images) -> Served:
        served = Served()
        waiting = list(range(self._image_count, self._image_count + images.count))
        self._image_count += images.count

        async def call_again_and_again() -> None:
            while waiting:
                await self._call(images, waiting.pop(), served)

        began_at = time.perf_counter()
        await asyncio.gather(*(call_again_and_again() for _ in range(images.callers)))
        served.total_s = time.perf_counter() - began_at
        return served

    async def _call(self, images: Images, seed: int, served: Served) -> None:
        began_at = time.perf_counter()
        async with self._client.generate(
            f"a lighthouse {seed}",
            width=images.side_px,
            height=images.side_px,
            num_inference_steps=images.steps,
            seed=seed,
        ) as events:
            async for event in events:
                if isinstance(event, Completed):
                    served.timings.append(event.timings)
                    served.widths.update(event.batch_widths)
        served.latencies_s.append(time.perf_counter() - began_at)
