import asyncio
import hashlib
import io
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import c2pa
import pytest

from safelight_service.core.events import (
    Accepted,
    Completed,
    Event,
    Image,
    Progress,
    Queued,
)
from safelight_service.core.request import GenerationRequest, OutputOptions, Parameters
from safelight_service.core.tenant import Tenant
from safelight_service.engine import Engine
from safelight_service.engine.batching.estimates.arrivals import Expectation
from safelight_service.engine.batching.step_batcher import StepBatcher
from safelight_service.settings import BatchingSettings, ProvenanceSettings, Settings
from support.engine.job_runs import (
    SMALL,
    collect,
    count_forwards,
    difference,
    images_of,
    pixels_of,
    steps_of,
)
from support.engine.tiny_models import MERGING, TinyModels
from support.provenance.samples import dev_settings
from support.warm_process import run_warm

UNSIGNED = ProvenanceSettings()
REQUEST = GenerationRequest("a red circle", Parameters(**SMALL), waits_for_model=True)


@asynccontextmanager
async def open_engine(
    tiny_models: TinyModels,
    family: str,
    batching: BatchingSettings,
    heartbeat_s: float,
    provenance: ProvenanceSettings,
) -> AsyncIterator[Engine]:
    engine = Engine(
        Settings(
            models=(tiny_models.settings(family),),
            torch_threads=1,
            batching=batching,
            heartbeat_s=heartbeat_s,
            provenance=provenance,
        )
    )
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def with_engine(
    tiny_models: TinyModels,
    family: str,
    act: Callable[[Engine], Awaitable[None]],
    batching: BatchingSettings = MERGING,
    heartbeat_s: float = 5.0,
    provenance: ProvenanceSettings = UNSIGNED,
) -> None:
    async def run() -> None:
        async with open_engine(tiny_models, family, batching, heartbeat_s, provenance) as engine:
            await act(engine)

    asyncio.run(run())


def test_generation_begins_with_accepted_and_ends_with_completed(
    tiny_models: TinyModels,
) -> None:
    async def act(engine: Engine) -> None:
        events = await collect(engine, REQUEST)
        accepted, completed = events[0], events[-1]
        assert isinstance(accepted, Accepted)
        assert (accepted.model, accepted.request.parameters.seed) == ("sd15", SMALL["seed"])
        assert isinstance(completed, Completed)
        assert completed.step_count == SMALL["num_inference_steps"]
        assert completed.timings.denoise_s > 0
        assert len(images_of(events)) == 1
        assert steps_of(events)[-1] == SMALL["num_inference_steps"]

    with_engine(tiny_models, "sd15", act)


def test_images_are_signed_before_they_are_hashed(tiny_models: TinyModels, tmp_path: Path) -> None:
    async def act(engine: Engine) -> None:
        request = replace(REQUEST, output=OutputOptions("image/webp"))
        [image] = [each for each in await collect(engine, request) if isinstance(each, Image)]
        assert image.sha256 == hashlib.sha256(image.data).hexdigest()
        reader = c2pa.Reader("image/webp", io.BytesIO(image.data))
        assert reader.get_validation_state() == "Valid"
        manifest: Any = reader.get_active_manifest()
        [action] = manifest["assertions"][0]["data"]["actions"]
        assert action["softwareAgent"]["name"] == "sd15"

    with_engine(tiny_models, "sd15", act, provenance=dev_settings(tmp_path))


def test_generations_at_the_same_time_do_not_disturb_each_other(tiny_models: TinyModels) -> None:
    async def act(engine: Engine) -> None:
        [alone] = images_of(await collect(engine, REQUEST))
        together = await asyncio.gather(*(collect(engine, REQUEST) for _ in range(3)))
        for events in together:
            [image] = images_of(events)
            # Equal up to rounding: a wider batch sums in another order.
            assert difference(pixels_of(image), pixels_of(alone)) <= 1
            completed = events[-1]
            assert isinstance(completed, Completed)
            assert max(completed.widths) > 1

    with_engine(tiny_models, "flux-dev", act)


def test_a_deterministic_engine_makes_the_same_bytes_among_other_work(
    tiny_models: TinyModels,
) -> None:
    async def act(engine: Engine) -> None:
        [alone] = images_of(await collect(engine, REQUEST))
        together = await asyncio.gather(*(collect(engine, REQUEST) for _ in range(3)))
        assert [images_of(events)[0].data for events in together] == [alone.data] * 3

    with_engine(tiny_models, "flux-dev", act, BatchingSettings(deterministic=True))


def test_a_prompt_is_encoded_for_each_scope_of_callers(tiny_models: TinyModels) -> None:
    async def act(engine: Engine) -> None:
        model = engine.find_loaded()
        assert model is not None
        encoded: list[object] = []
        hook = model.adapter.pipeline.text_encoder.register_forward_hook(
            lambda *_: encoded.append(None)
        )
        counts = []
        for scope in ("one", "one", "two"):
            await collect(engine, replace(REQUEST, inputs="a secret", cache_scope=scope))
            counts.append(len(encoded))
        hook.remove()
        assert counts[0] == counts[1]
        assert counts[2] == 2 * counts[0] > 0

    with_engine(tiny_models, "sd15", act)


def test_a_waiting_caller_gets_its_position_again(tiny_models: TinyModels) -> None:
    has_heard_enough = threading.Event()

    async def act(engine: Engine) -> None:
        model = engine.find_loaded()
        assert model is not None
        received: list[Event] = []

        def hear(event: Event) -> None:
            received.append(event)
            if received[-4:] == [Queued(1, None)] * 4:
                has_heard_enough.set()

        with count_forwards(model, lambda: has_heard_enough.wait(30)):
            await asyncio.gather(collect(engine, REQUEST), collect(engine, REQUEST, hear))
        assert has_heard_enough.is_set()
        assert isinstance(received[-1], Completed)

    with_engine(tiny_models, "sd15", act, BatchingSettings(max_width=1), heartbeat_s=0.01)


async def begin(
    engine: Engine, request: GenerationRequest, kind: type[Event]
) -> "asyncio.Future[list[Event]]":
    """Start a generation, and return once it has sent an event of a kind."""
    has_begun = asyncio.Event()

    def hear(event: Event) -> None:
        if isinstance(event, kind):
            has_begun.set()

    generation = asyncio.ensure_future(collect(engine, request, hear))
    await has_begun.wait()
    return generation


def test_positions_follow_the_shares_of_the_callers(tiny_models: TinyModels) -> None:
    """A second caller is next, though three of the first have waited for longer."""

    async def act(engine: Engine) -> None:
        await collect(engine, REQUEST)  # measures the cost of a step
        positions: list[int] = []

        def hear(event: Event) -> None:
            if isinstance(event, Queued):
                positions.append(event.position)

        long = replace(REQUEST, parameters=Parameters(**{**SMALL, "num_inference_steps": 60}))
        first = [await begin(engine, long, Progress)]
        first += [await begin(engine, long, Queued) for _ in range(3)]
        await collect(engine, replace(REQUEST, tenant=Tenant("second")), hear)
        for each in first:
            each.cancel()
        ended = await asyncio.gather(*first, return_exceptions=True)
        assert {type(each) for each in ended} == {asyncio.CancelledError}
        assert (positions[0], positions[-1]) == (4, 1)
        assert {2, 3}.isdisjoint(positions)

    with_engine(tiny_models, "sd15", act, BatchingSettings(max_width=1, order="first_come"))


def test_cancelling_the_run_stops_the_generation(tiny_models: TinyModels) -> None:
    async def act(engine: Engine) -> None:
        request = GenerationRequest("x", Parameters(**{**SMALL, "num_inference_steps": 100}))
        is_running = asyncio.Event()

        def hear(event: Event) -> None:
            if isinstance(event, Progress):
                is_running.set()

        model = engine.find_loaded()
        assert model is not None
        with count_forwards(model) as forwards:
            running = asyncio.ensure_future(collect(engine, request, hear))
            await is_running.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await collect(engine, REQUEST)  # runs once the device is free
        assert forwards.count < 100

    with_engine(tiny_models, "flux-dev", act)


@pytest.mark.parametrize("expected", [Expectation(3, 30.0, 0.0), Expectation(0, 0.0, 1.0)])
def test_jobs_that_come_at_the_same_time_start_together(
    tiny_models: TinyModels, expected: Expectation
) -> None:
    """An idle device waits briefly for the callers it expects back, and for one more after each."""

    async def act(engine: Engine) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StepBatcher, "expect", lambda _: expected)
            together = await asyncio.gather(*(collect(engine, REQUEST) for _ in range(3)))
        for events in together:
            completed = events[-1]
            assert isinstance(completed, Completed)
            assert set(completed.widths) == {3}

    with_engine(tiny_models, "flux-dev", act)


def test_the_device_thread_alone_has_a_team_of_openmp_threads() -> None:
    """With a second team, both would sleep while they wait for work, which slows steps."""
    counted = run_warm(["tests.service.engine.count_teams"], os.environ)
    assert counted.stderr.splitlines()[-1] == "1"
