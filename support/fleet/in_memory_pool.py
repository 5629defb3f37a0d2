"""In-memory pool: engine hosts of this process, behind a transport that pickles and can fail."""

import asyncio
import pickle
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from safelight_service.core.backend import Backend, BackendStats
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.fleet.engine_host import EngineHost
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.pool import HostLostError, NoHostError


@dataclass(eq=False)
class Wire:
    """The connection of a host: cut it, or let it fall silent."""

    host_id: str
    engine: Backend
    sign_of_life_s: float = 1.0
    host: EngineHost = field(init=False)
    is_cut: bool = False
    is_silent: bool = False
    _change: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.host = EngineHost(self.engine, self.host_id, self.sign_of_life_s)

    def cut(self) -> None:
        """End all streams as a killed process does, and refuse new ones."""
        self.is_cut = True
        self._change.set()

    def mend(self) -> None:
        """Take calls again, as a process that was started anew."""
        self.is_cut = self.is_silent = False
        self._change.clear()

    def freeze(self) -> None:
        """Carry nothing more, as a stopped process does."""
        self.is_silent = True
        self._change.set()

    async def carry(self, frames: AsyncGenerator[Frame, None]) -> AsyncGenerator[Frame, None]:
        """Yield the frames, pickled in between, until the wire fails."""
        async with aclosing(frames):
            while True:
                following = asyncio.ensure_future(anext(frames, None))
                changing = asyncio.ensure_future(self._change.wait())
                try:
                    await asyncio.wait({following, changing}, return_when=asyncio.FIRST_COMPLETED)
                    if self.is_cut:
                        raise HostLostError
                    if self.is_silent:
                        await asyncio.Event().wait()
                    frame = await following
                finally:
                    for task in (following, changing):
                        if not task.done():
                            task.cancel()
                    await asyncio.wait({following, changing})
                if frame is None:
                    return
                yield _carry_over(frame)


class InMemoryPool:
    """Chooses the first host that is not excluded."""

    def __init__(self, *wires: Wire) -> None:
        self.wires = list(wires)
        self.calls: list[str] = []
        """Ids of the hosts that were called, in order."""

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe the models as the first host sees them."""
        models: tuple[ModelInfo, ...] = _carry_over(self._choose(frozenset()).host.describe())
        return models

    async def stats(self) -> tuple[BackendStats, ...]:
        """Return the load of each host."""
        return tuple(wire.host.stats() for wire in self.wires if not wire.is_cut)

    async def prepare(
        self, request: GenerationRequest, left_s: float | None, excluded: frozenset[str]
    ) -> AsyncGenerator[Frame, None]:
        """Resolve a request on the first host."""
        request = _carry_over(request)
        async with aclosing(
            self._carry(excluded, lambda host: host.prepare(request, left_s))
        ) as frames:
            async for frame in frames:
                yield frame

    async def run(self, order: RunOrder, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Run an order on the first host."""
        order = _carry_over(order)
        async with aclosing(self._carry(excluded, lambda host: host.run(order))) as frames:
            async for frame in frames:
                yield frame

    async def note(self, run_id: str, *, is_abandoned: bool, is_joined: bool) -> None:
        """Note the watchers of a run at all hosts."""
        for wire in self.wires:
            wire.host.note(run_id, is_abandoned=is_abandoned, is_joined=is_joined)

    async def note_cancelled(self, run_id: str) -> None:
        """Note at all hosts that nobody will continue a run."""
        for wire in self.wires:
            wire.host.note_cancelled(run_id)

    async def close(self) -> None:
        """Do nothing: the hosts belong to the caller."""

    async def _carry(
        self,
        excluded: frozenset[str],
        call: Callable[[EngineHost], AsyncGenerator[Frame, None]],
    ) -> AsyncGenerator[Frame, None]:
        wire = self._choose(excluded)
        self.calls.append(wire.host_id)
        async with aclosing(wire.carry(call(wire.host))) as frames:
            async for frame in frames:
                yield frame

    def _choose(self, excluded: frozenset[str]) -> Wire:
        for wire in self.wires:
            if wire.host_id not in excluded and not wire.is_cut:
                return wire
        raise NoHostError


def _carry_over(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))
