"""Runs that continue from the logs of interrupted ones."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from safelight_service.core.backend import Backend
from safelight_service.core.events import Completed, Event, Image, Progress, Restarted
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.engine.recovery.records import decode
from safelight_service.settings import BatchingSettings, RecoverySettings, Settings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.pipelines.families import FAMILIES
from tests.service.fleet.backends import become, generate, has_logs, open_local, settings_of

STEPS, REACHED = 16, 4
REQUEST = GenerationRequest(
    "a red circle",
    Parameters(**{**SMALL, "num_inference_steps": STEPS, "scheduler": "euler"}),
    waits_for_model=True,
    run_key="a run",
)


def settings_with(tiny_models: TinyModels, folder: Path, **recovery: int) -> Settings:
    return settings_of(tiny_models).model_copy(
        update={"recovery": RecoverySettings(folder=folder, **recovery)}
    )


async def interrupt(
    backend: Backend, request: GenerationRequest, timeline: Timeline | None = None
) -> list[Event]:
    """Run a request, and cancel it once its first image has reached a step."""
    events: list[Event] = []
    running: asyncio.Task[list[Event]] | None = None

    def note(event: Event) -> None:
        events.append(event)
        if isinstance(event, Progress) and event.image_index == 0 and event.step == REACHED:
            assert running is not None
            running.cancel()

    running = asyncio.ensure_future(generate(backend, request, note, timeline))
    with pytest.raises(asyncio.CancelledError):
        await running
    return events


def digests(events: list[Event]) -> list[str]:
    return [event.sha256 for event in events if isinstance(event, Image)]


def recovered(events: list[Event]) -> int:
    return sum(event.recovered_step_count for event in events if isinstance(event, Restarted))


def forwards(events: list[Event]) -> int:
    completed = events[-1]
    assert isinstance(completed, Completed)
    return sum(completed.widths.values())


def run_interrupted(
    settings: Settings,
    request: GenerationRequest,
) -> tuple[list[Event], list[Event]]:
    """Return the events of an undisturbed run, and of one that follows an interrupted one.

    The last one has an engine of its own.
    """
    assert settings.recovery is not None
    assert settings.recovery.folder is not None
    folder = settings.recovery.folder

    async def main() -> tuple[list[Event], list[Event]]:
        async with open_local(settings) as engine:
            undisturbed = await generate(engine, request)
            await become(lambda: not has_logs(folder))  # removed at the end of the run
            await interrupt(engine, request)
        async with open_local(settings) as engine:
            again = await generate(engine, request)
        return undisturbed, again

    return asyncio.run(main())


def test_a_run_continues_with_the_same_bytes(tiny_models: TinyModels, tmp_path: Path) -> None:
    undisturbed, again = run_interrupted(settings_with(tiny_models, tmp_path), REQUEST)
    assert digests(again) == digests(undisturbed)
    assert REACHED <= recovered(again) <= STEPS
    assert forwards(again) == STEPS - recovered(again)
    steps = [event.step for event in again if isinstance(event, Progress)]
    assert steps == [*range(recovered(again), STEPS + 1)]
    completed = again[-1]
    assert isinstance(completed, Completed)
    assert (completed.restart_count, completed.step_count) == (1, STEPS)


def test_each_image_continues_where_it_was(tiny_models: TinyModels, tmp_path: Path) -> None:
    settings = settings_with(tiny_models, tmp_path).model_copy(
        update={"batching": BatchingSettings(max_width=2)}
    )
    request = replace(REQUEST, image_count=3)
    undisturbed, again = run_interrupted(settings, request)
    assert len(digests(again)) == 3
    assert recovered(again) >= REACHED
    assert forwards(again) + recovered(again) <= 3 * STEPS
    assert forwards(undisturbed) == 3 * STEPS


def test_a_run_that_its_caller_has_cancelled_leaves_no_log(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    async def main() -> None:
        async with open_local(settings_with(tiny_models, tmp_path)) as engine:
            await interrupt(engine, REQUEST)
            assert has_logs(tmp_path)
            await interrupt(engine, REQUEST, Timeline(cancelled_at=time.monotonic()))
            await become(lambda: not has_logs(tmp_path))
            timeline = Timeline()
            await interrupt(engine, REQUEST, timeline)
            assert has_logs(tmp_path)
            timeline.cancelled_at = time.monotonic()  # the note of a front comes late
            await become(lambda: not has_logs(tmp_path))

    asyncio.run(main())


def read_log(folder: Path) -> tuple[Path, bytes]:
    [path] = folder.iterdir()
    return path, path.read_bytes()


def with_other_arguments(log: bytes, name: str) -> bytes:
    """Return the log of a run whose forwards had other arguments."""
    records = [replace(record, signature="other") for record, _ in decode(name, log)]
    return b"".join(record.encode(name) for record in records)


def test_a_bad_log_costs_steps_only(tiny_models: TinyModels, tmp_path: Path) -> None:
    settings = settings_with(tiny_models, tmp_path)

    async def main() -> None:
        async with open_local(settings) as engine:
            undisturbed = digests(await generate(engine, replace(REQUEST, run_key="")))
            await interrupt(engine, REQUEST)
        path, log = read_log(tmp_path)
        async with open_local(settings) as engine:
            for damaged, count in (
                (b"", 0),
                (b"\0" * len(log), 0),
                (log[: len(log) // 3], 1),
                (with_other_arguments(log, path.stem), 0),
            ):
                path.write_bytes(damaged)
                again = await generate(engine, REQUEST)
                assert digests(again) == undisturbed
                made = STEPS - forwards(again)
                assert made >= count if count else made == 0
                await become(lambda: not path.exists())  # removed at the end of the run

    asyncio.run(main())


def test_other_requests_and_other_runs_have_logs_of_their_own(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    others = (
        replace(REQUEST, run_key="another run"),
        replace(REQUEST, inputs="a blue circle"),
        replace(REQUEST, cache_scope="others"),
        replace(REQUEST, parameters=replace(REQUEST.parameters, seed=8)),
    )

    async def main() -> None:
        async with open_local(settings_with(tiny_models, tmp_path)) as engine:
            await interrupt(engine, REQUEST)
            for other in others:
                assert recovered(await generate(engine, other)) == 0
            assert not recovered(await generate(engine, replace(REQUEST, run_key="")))
            assert recovered(await generate(engine, REQUEST)) > 0

    asyncio.run(main())


def test_a_folder_that_cannot_be_written_costs_the_log_only(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    settings = settings_with(tiny_models, tmp_path / "file")

    async def main() -> None:
        async with open_local(settings) as engine:
            assert len(digests(await generate(engine, REQUEST))) == 1

    asyncio.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_pipelines_of_all_families_continue(
    tiny_models: TinyModels, tmp_path: Path, family: str
) -> None:
    settings = settings_with(tiny_models, tmp_path).model_copy(
        update={"models": (tiny_models.settings(family),)}
    )
    request = replace(REQUEST, parameters=replace(REQUEST.parameters, scheduler=None))
    undisturbed, again = run_interrupted(settings, request)
    assert digests(again) == digests(undisturbed)
    assert recovered(again) >= REACHED - 1
