"""Device time: an engine in this process, and the device seconds that its tenants have used."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from safelight_service.core.observer import Observer
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.tenant import Tenant
from safelight_service.core.timeline import SharedForward, Timeline
from safelight_service.engine import Engine
from safelight_service.settings import BatchingSettings, Settings


class DeviceTime(Observer):
    """Seconds of forwards by the name of the tenant; images that share one have equal parts."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.note_forward = self._note

    def _note(self, forward: SharedForward) -> None:
        seconds = (forward.ended_at - forward.began_at) / len(forward.members)
        for image, _ in forward.members:
            self.seconds[str(image.timeline.observed or "")] += seconds


@dataclass(frozen=True)
class MeasuredEngine:
    """An engine, and the device time of its tenants."""

    engine: Engine
    time: DeviceTime

    async def generate(self, tenant: Tenant, steps: int) -> None:
        """Make an image of a tenant; cancel the task to cancel it.

        Raises:
            SafelightError: the generation fails or is refused.
        """
        request = GenerationRequest(
            "a red circle", Parameters(num_inference_steps=steps, seed=0), tenant=tenant
        )
        timeline = Timeline(observed=tenant.name, token=tenant.name)
        async with self.engine.prepare(request, _ignore, timeline) as prepared:
            await self.engine.run(prepared, _ignore)

    def used_s(self, tenant: Tenant) -> float:
        """Return the device seconds of all work that counts for a tenant so far."""
        used = self.engine.stats().device_time_s
        return sum(seconds for (_, token), seconds in used.items() if token == tenant.name)


@asynccontextmanager
async def open_measured_engine(
    queue_size: int, batching: BatchingSettings
) -> AsyncIterator[MeasuredEngine]:
    """Run an engine with the embedded model."""
    time = DeviceTime()
    engine = Engine(Settings(queue_size=queue_size, batching=batching, torch_threads=1), time)
    try:
        await engine.start()
        yield MeasuredEngine(engine, time)
    finally:
        await engine.close()


def _ignore(_: Any) -> None:
    """Ignore an event."""
