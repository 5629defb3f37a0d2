"""Kills: generations of a front whose engines are killed while they make the images."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from safelight_service.core.events import Event, Image, Progress, Restarted
from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.attempts import Patience
from safelight_service.fleet.remote_backend import RemoteBackend
from safelight_service.settings import Settings
from support.fleet.process_pool import ProcessPool, open_process_pool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The events of a generation, and the forwards that all engines together made for it."""

    events: tuple[Event, ...]
    forward_count: int

    @property
    def digests(self) -> list[str]:
        """SHA-256 of each image."""
        return [event.sha256 for event in self.events if isinstance(event, Image)]

    @property
    def restarts(self) -> list[Restarted]:
        """The restarts."""
        return [event for event in self.events if isinstance(event, Restarted)]

    @property
    def recovered_step_count(self) -> int:
        """Steps that the last engine had not to make."""
        return self.restarts[-1].recovered_step_count if self.restarts else 0


class Killing:
    """A front over engines of which the first runs everything."""

    def __init__(self, front: RemoteBackend, pool: ProcessPool) -> None:
        self._front = front
        self._pool = pool

    async def generate(
        self, request: GenerationRequest, *kill_at_steps: int, delay_s: float = 0.0
    ) -> Outcome:
        """Run a request; kill its engine `delay_s` seconds after each of these steps.

        Another engine starts before the kill, so that one is always ready.
        """
        events: list[Event] = []
        killing: list[asyncio.Task[None]] = []
        remaining = [*kill_at_steps]

        async def kill() -> None:
            await asyncio.sleep(delay_s)
            self._pool.kill()

        def note(event: Event) -> None:
            events.append(event)
            if isinstance(event, Progress) and remaining and event.step >= remaining[0]:
                remaining.pop(0)
                killing.append(asyncio.ensure_future(kill()))

        for _ in kill_at_steps:
            await asyncio.to_thread(self._pool.start_engine)
        before = self._pool.forward_count  # after the warm-ups
        async with self._front.prepare(request, note, Timeline()) as prepared:
            events.append(await self._front.run(prepared, note))
        await asyncio.gather(*killing)
        return Outcome(tuple(events), self._pool.forward_count - before)


@asynccontextmanager
async def open_killing(settings: Settings, model: str) -> AsyncIterator[Killing]:
    """Start a front over one engine for a model."""
    async with open_process_pool(settings, 1) as pool:
        front = RemoteBackend({model: pool}, model, Patience(attempts=9, pause_s=0.01))
        await front.start()
        try:
            yield Killing(front, pool)
        finally:
            await front.close()
