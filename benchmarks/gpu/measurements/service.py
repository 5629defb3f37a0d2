"""Service: the whole of it in a process of its own, and callers that reach it over gRPC."""

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
    """A number of images that a number of callers get, each one after another."""

    side_px: int
    steps: int
    callers: int
    count: int


@dataclass(slots=True)
class Served:
    """Measurements of the callers."""

    total_s: float = 0.0
    latencies_s: list[float] = field(default_factory=list)
    timings: list[Timings] = field(default_factory=list)
    """The service's own account of each image."""
    widths: Counter[int] = field(default_factory=Counter)
    """How often so many images shared a forward, counted for each of them."""


@contextmanager
def run_service(
    session: Session, recorder: Recorder, architecture: str, acceleration: Mapping[str, object]
) -> Iterator[str]:
    """Yield HOST:PORT of a service with random weights, once it is ready.

    Its process is forked, so this process must not have used CUDA yet.

    Raises:
        RuntimeError: it did not start; why has been written down.
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
    """Callers of one service that share a connection; `with` closes it."""

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
        """Get images, none of which has been asked for before; return when all are there.

        Raises:
            SafelightError: one of them failed.
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
