"""A front whose engine hosts die, freeze, stop or change their models."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from safelight_service.core.backend import ModelChangedError
from safelight_service.core.errors import DeadlineError, NoEngineError
from safelight_service.core.events import Accepted, Completed, Event, Image, Progress, Restarted
from safelight_service.core.model import ModelState
from safelight_service.core.request import Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.attempts import Patience
from safelight_service.fleet.engine_host import EngineHost
from safelight_service.fleet.remote_backend import RemoteBackend
from safelight_service.provenance.marker import Marker
from safelight_service.settings import ProvenanceSettings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.in_memory_pool import InMemoryPool, Wire
from tests.service.fleet.backends import (
    LONG,
    PATIENCE,
    REQUEST,
    become,
    begin,
    cancel,
    generate,
    open_fleet,
    open_local,
    settings_of,
)

SEVERAL = replace(
    REQUEST, parameters=Parameters(**{**SMALL, "num_inference_steps": 20}), image_count=3
)


def with_fleet(
    tiny_models: TinyModels,
    count: int,
    act: Callable[[RemoteBackend, InMemoryPool], Awaitable[None]],
    patience: Patience = PATIENCE,
) -> None:
    async def main() -> None:
        fleet = open_fleet(settings_of(tiny_models), count, patience)
        async with asyncio.timeout(60), fleet as (front, pool):
            await act(front, pool)

    asyncio.run(main())


def digests(events: list[Event]) -> list[tuple[int, str]]:
    return sorted((event.index, event.sha256) for event in events if isinstance(event, Image))


def at_step(step: int, act: Callable[[], None]) -> Callable[[Event], None]:
    """Return a callback that acts at the first event of a step."""
    done = False

    def note(event: Event) -> None:
        nonlocal done
        if isinstance(event, Progress) and event.step >= step and not done:
            done = True
            act()

    return note


def test_work_of_a_killed_host_runs_again_elsewhere_with_the_same_bytes(
    tiny_models: TinyModels,
) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        undisturbed = digests(await generate(front, SEVERAL))
        pool.calls.clear()
        events = await generate(front, SEVERAL, at_step(10, pool.wires[0].cut))
        assert digests(events) == undisturbed
        assert [type(event) for event in events].count(Accepted) == 1
        restarted = Restarted(1, recovered_step_count=0)
        after = events[events.index(restarted) :]
        assert next(event.step for event in after if isinstance(event, Progress)) < 10
        assert [type(event) for event in events].count(Restarted) == 1
        assert isinstance(events[-1], Completed)
        assert events[-1].restart_count == 1
        assert pool.calls == ["a", "a", "b"]  # prepare, run, run

    with_fleet(tiny_models, 2, act)


def test_a_frozen_host_is_given_up(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        events = await generate(front, SEVERAL, at_step(10, pool.wires[0].freeze))
        assert len(digests(events)) == SEVERAL.image_count
        assert pool.calls[-1] == "b"

    with_fleet(tiny_models, 2, act, replace(PATIENCE, silence_s=0.5))


def test_the_device_of_a_frozen_host_is_freed_when_it_thaws(tiny_models: TinyModels) -> None:
    """Closing the stream cancels the run; the front does not wait for that."""

    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        running = await begin(front, LONG, Progress)
        pool.wires[0].freeze()
        await cancel(running)
        await become(lambda: pool.wires[0].host.stats().running_count == 0)

    with_fleet(tiny_models, 2, act)


def test_a_stopping_host_hands_its_work_on(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        pool.wires[0].engine.drain()
        events = await generate(front, SEVERAL)
        assert digests(events)
        assert not [event for event in events if isinstance(event, Restarted)]  # nothing was lost
        assert pool.calls[-1] == "b"

    with_fleet(tiny_models, 2, act)


def test_a_fleet_without_hosts_says_so(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        for wire in pool.wires:
            wire.cut()
        with pytest.raises(NoEngineError):
            await generate(front, REQUEST)
        assert front.get_model("").state is ModelState.READY  # as last heard

    with_fleet(tiny_models, 1, act)


def test_a_host_that_returns_is_called_again(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        pool.wires[0].cut()
        generating = asyncio.ensure_future(generate(front, REQUEST))
        await asyncio.sleep(0)
        pool.wires[0].mend()
        assert digests(await generating)

    with_fleet(tiny_models, 1, act)


def test_a_request_past_its_deadline_is_not_tried_again(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        pool.wires[0].cut()
        with pytest.raises(DeadlineError):
            await generate(front, replace(REQUEST, deadline_at=time.monotonic() - 1))

    with_fleet(tiny_models, 1, act)


def with_update(
    tiny_models: TinyModels, act: Callable[[RemoteBackend, InMemoryPool], Awaitable[None]]
) -> None:
    """Act on a fleet whose second host serves another revision of the model."""
    settings = settings_of(tiny_models)
    model = settings.models[0].model_copy(update={"revision": "newer"})

    async def act_on_both(front: RemoteBackend, pool: InMemoryPool) -> None:
        async with open_local(settings.model_copy(update={"models": (model,)})) as engine:
            pool.wires.append(Wire("b", engine))
            await act(front, pool)

    with_fleet(tiny_models, 1, act_on_both)


def test_a_run_whose_revision_has_gone_publishes_nothing(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        events: list[Event] = []
        async with front.prepare(REQUEST, events.append, Timeline()) as prepared:
            assert prepared.marking == Marker(ProvenanceSettings()).identity
            pool.wires[0].cut()
            with pytest.raises(ModelChangedError):
                await front.run(prepared, events.append)
        assert not events

    with_update(tiny_models, act)


def test_a_lost_run_does_not_go_on_with_another_revision(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        with pytest.raises(NoEngineError):
            await generate(front, SEVERAL, at_step(3, pool.wires[0].cut))
        assert pool.calls[-1] == "b"

    with_update(tiny_models, act)


def test_a_host_knows_whether_a_run_is_watched(tiny_models: TinyModels) -> None:
    async def act(front: RemoteBackend, pool: InMemoryPool) -> None:
        timeline = Timeline()
        stepping = await begin(front, LONG, Progress, timeline)
        host: EngineHost = pool.wires[0].host
        (run,) = host.runs
        assert (run.is_abandoned, run.is_joined) == (False, False)
        timeline.abandoned_at = timeline.joined_at = time.monotonic()
        await become(lambda: (run.is_abandoned, run.is_joined) == (True, True))
        timeline.abandoned_at = None
        await become(lambda: not run.is_abandoned)
        await cancel(stepping)

    with_fleet(tiny_models, 1, act)
