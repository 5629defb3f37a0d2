"""An engine host and its front, with an engine that sleeps."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace

import pytest

from safelight_service.core.errors import NoEngineError
from safelight_service.core.events import Progress
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.attempts import Patience, call_hosts
from safelight_service.fleet.engine_host import EngineHost
from safelight_service.fleet.frames import Frame, Moments
from safelight_service.fleet.remote_backend import RemoteBackend
from safelight_service.fleet.routing import FRONT, lane_of
from support.fleet.in_memory_pool import InMemoryPool, Wire
from support.fleet.sleeping_engine import MODEL, SleepingEngine
from tests.service.fleet.backends import become, begin, cancel

LONG = GenerationRequest(
    "a red circle", Parameters(width=64, height=32, num_inference_steps=1000), image_count=2
)


def with_host(act: Callable[[RemoteBackend, EngineHost], Awaitable[None]]) -> None:
    async def main() -> None:
        wire = Wire("a", SleepingEngine())
        front = RemoteBackend({MODEL: InMemoryPool(wire)}, MODEL, Patience())
        async with asyncio.timeout(20):
            await act(front, wire.host)

    asyncio.run(main())


def test_a_host_reports_the_steps_that_are_left_by_fronts_and_lanes() -> None:
    async def act(front: RemoteBackend, host: EngineHost) -> None:
        assert host.loads() == {}
        running = await begin(front, LONG, Progress)
        lane = lane_of(MODEL, 64, 32)
        await become(lambda: host.loads()[FRONT][lane][1] < 998)
        assert host.loads()[FRONT][lane][0] == 2
        await cancel(running)
        assert host.loads() == {}

    with_host(act)


@pytest.mark.parametrize(
    ("run_key", "is_cancelled", "is_over"),
    [("key", True, True), ("key", False, False), ("", False, True)],
)
def test_a_host_knows_whether_a_run_may_be_continued(
    run_key: str, is_cancelled: bool, is_over: bool
) -> None:
    """Without a key of its callers, no other front can ask for it."""

    async def act(front: RemoteBackend, host: EngineHost) -> None:
        timeline = Timeline()
        running = await begin(front, replace(LONG, run_key=run_key), Progress, timeline)
        (run,) = host.runs
        timeline.cancelled_at = time.monotonic() if is_cancelled else None
        await cancel(running)
        assert (run.timeline.cancelled_at is not None) == is_over

    with_host(act)


class SlowlyNotingPool(InMemoryPool):
    """Notes a cancel only once its stream has closed."""

    async def note_cancelled(self, run_id: str) -> None:
        """Note it late."""
        host = self.wires[0].host
        await become(lambda: not host.runs)
        host.note_cancelled(run_id)


def test_a_cancel_does_not_wait_for_its_note() -> None:
    async def main() -> None:
        wire = Wire("a", SleepingEngine())
        front = RemoteBackend({MODEL: SlowlyNotingPool(wire)}, MODEL, Patience())
        async with asyncio.timeout(20):
            running = await begin(front, LONG, Progress)
            (run,) = wire.host.runs
            await cancel(running)
        assert run.timeline.cancelled_at is not None

    asyncio.run(main())


@pytest.mark.parametrize(
    ("is_queued", "is_started", "calls"), [(False, False, 2), (True, True, 2), (True, False, 6)]
)
def test_hosts_lost_while_a_call_waits_there_count_a_third(
    is_queued: bool, is_started: bool, calls: int
) -> None:
    called = 0

    async def call(left_s: float | None, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        nonlocal called
        called += 1
        timeline = Timeline()
        timeline.queued_at = timeline.began_at if is_queued else None
        if is_started:
            timeline.add_image().started_at = timeline.began_at
        yield Frame("a", moments=Moments.of(timeline))

    async def main() -> None:
        patience = Patience(attempts=2, pause_s=0)
        with pytest.raises(NoEngineError):
            async for _ in call_hosts(call, None, Timeline(), patience):
                pass

    asyncio.run(main())
    assert called == calls


async def count_calls(silence_s: float, *, is_front_paused: bool) -> int:
    """Return how often a front calls a host that is silent for longer than `silence_s`."""
    calls = 0

    async def call(left_s: float | None, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        nonlocal calls
        calls += 1
        yield Frame("a")
        if is_front_paused:
            resumes_at = time.monotonic() + 2 * silence_s
            while time.monotonic() < resumes_at:
                pass
        else:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        yield Frame("a", outcome=NoEngineError())

    patience = Patience(silence_s=silence_s, attempts=2, pause_s=0)
    with pytest.raises(NoEngineError):
        async for _ in call_hosts(call, None, Timeline(), patience):
            pass
    return calls


@pytest.mark.parametrize(("is_front_paused", "calls"), [(True, 1), (False, 2)])
def test_a_host_is_lost_by_its_own_silence_only(is_front_paused: bool, calls: int) -> None:
    """A front that was paused has not heard its hosts."""
    assert asyncio.run(count_calls(0.05, is_front_paused=is_front_paused)) == calls
