"""Signs of life of a call that waits for an engine host."""

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from safelight_service.core.events import Event, ModelLoading, Queued
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.fleet.attempts import Patience
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.heartbeat import Heartbeat
from safelight_service.fleet.remote_backend import RemoteBackend
from support.fleet.in_memory_pool import InMemoryPool, Wire
from support.fleet.sleeping_engine import MODEL, SleepingEngine
from tests.service.fleet.backends import generate

QUEUED = Queued(1, None)


@pytest.mark.parametrize(
    ("frame", "interval_s", "is_reported"),
    [
        (Frame(""), 0.0, True),
        (Frame(""), 100.0, False),
        (Frame("a"), 0.0, False),
        (Frame("a", (QUEUED,)), 0.0, False),
    ],
)
def test_only_a_call_without_a_host_reports_that_it_waits(
    frame: Frame, interval_s: float, is_reported: bool
) -> None:
    events: list[Event] = []
    heartbeat = Heartbeat("shapes", time.monotonic() - 7, events.append, interval_s)
    heartbeat.note(frame)
    assert len(events) == is_reported
    for event in events:
        assert isinstance(event, ModelLoading)
        assert event.model == "shapes"
        assert event.elapsed_s >= 7


class StartingPool(InMemoryPool):
    """Takes each call only after a sign of life without a host, as while an engine starts."""

    async def prepare(
        self, request: GenerationRequest, left_s: float | None, excluded: frozenset[str]
    ) -> AsyncGenerator[Frame, None]:
        """Wait, then resolve the request."""
        yield Frame("")
        async for frame in super().prepare(request, left_s, excluded):
            yield frame

    async def run(self, order: RunOrder, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Wait, then run the order."""
        yield Frame("")
        async for frame in super().run(order, excluded):
            yield frame


def test_callers_hear_that_they_wait_and_for_how_long() -> None:
    """Clients drop a wait that is not longer than one before."""

    async def main() -> list[Event]:
        pool = StartingPool(Wire("a", SleepingEngine()))
        front = RemoteBackend({MODEL: pool}, MODEL, Patience(heartbeat_s=0.0))
        return await generate(front, GenerationRequest("x", Parameters(num_inference_steps=2)))

    waits = [event for event in asyncio.run(main()) if isinstance(event, ModelLoading)]
    assert [event.model for event in waits] == [MODEL, MODEL]
    assert 0 < waits[0].elapsed_s < waits[1].elapsed_s
