"""Merging engine: a sleeping engine whose device makes one forward at a time, of one size."""

import asyncio
from collections import deque

from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import ResolvedRequest
from safelight_service.settings import Settings
from support.fleet.sleeping_engine import SleepingEngine

Size = tuple[int, int]

MERGED_COST = 0.4
"""Time of each further image of a forward, relative to the first."""

_ADMITTED = 1000
"""Generations at once; only the device bounds them."""


def make_merging_engine(settings: Settings, observer: Observer = NULL_OBSERVER) -> "MergingEngine":
    """Make an engine of 40 ms a step and at most eight images in a forward."""
    return MergingEngine(0.04, 8)


class MergingEngine(SleepingEngine):
    """Images of one size share the steps of a device, which serves the sizes in turns."""

    def __init__(self, step_s: float, width: int) -> None:
        """`step_s` is the time of a forward of one image, and `width` bounds the images."""
        super().__init__(step_s, _ADMITTED)
        self._width = width
        self._waiters: dict[Size, deque[asyncio.Future[int]]] = {}
        """Images that wait for a step, by their size; the next size comes first."""
        self._working: asyncio.Task[None] | None = None

    async def _step(self, request: ResolvedRequest) -> int:
        size = request.parameters.width, request.parameters.height
        made: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(size, deque()).append(made)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        return await made

    async def _work(self) -> None:
        while self._waiters:
            size = next(iter(self._waiters))
            waiting = self._waiters.pop(size)
            batch = [waiting.popleft() for _ in range(min(self._width, len(waiting)))]
            if waiting:
                self._waiters[size] = waiting
            await asyncio.sleep(self._step_s * (1 + MERGED_COST * (len(batch) - 1)))
            for made in batch:
                if not made.done():  # cancelled meanwhile
                    made.set_result(len(batch))
            await asyncio.sleep(0)  # they come back for their next step
