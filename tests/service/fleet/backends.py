"""Backends under test: the local engine, and a front over engine hosts of this process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from safelight_service.core.backend import Backend
from safelight_service.core.events import Completed, Event
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from safelight_service.engine import Engine
from safelight_service.fleet.attempts import Patience
from safelight_service.fleet.remote_backend import RemoteBackend
from safelight_service.settings import BatchingSettings, LimitSettings, Settings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.in_memory_pool import InMemoryPool, Wire

REQUEST = GenerationRequest("a red circle", Parameters(**SMALL), waits_for_model=True)
LONG = replace(
    REQUEST,
    parameters=Parameters(**{**SMALL, "num_inference_steps": 999, "scheduler": "euler"}),
    image_count=4,
)
"""A generation that outlasts a test; equal ones wait for it.

The model's own scheduler makes two forwards in its first step, so that such a generation seems to
take twice as long as equal ones that wait, until those have made a step, too.
"""
PATIENCE = Patience(silence_s=5.0, attempts=4, pause_s=0.01)

OpenBackend = Callable[[Settings], AbstractAsyncContextManager[Backend]]


def settings_of(tiny_models: TinyModels) -> Settings:
    """Return settings that serve the tiny Stable Diffusion 1.5, one image at once."""
    model = tiny_models.settings("sd15")
    model = model.model_copy(
        update={"limits": LimitSettings(max_step_count=999, max_image_count=4)}
    )
    return Settings(
        models=(model,),
        torch_threads=1,
        batching=BatchingSettings(max_width=1),
        heartbeat_s=0.1,
        queue_size=1,
    )


@asynccontextmanager
async def open_local(settings: Settings) -> AsyncIterator[Backend]:
    """Open the local engine."""
    engine = Engine(settings)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def open_fleet(
    settings: Settings, count: int, patience: Patience = PATIENCE
) -> AsyncIterator[tuple[RemoteBackend, InMemoryPool]]:
    """Open a front over `count` engine hosts named a, b, and so on."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(open_local(settings)) for _ in range(count)]
        pool = InMemoryPool(
            *(Wire(name, engine, 0.2) for name, engine in zip("abcd", engines, strict=False))
        )
        front = RemoteBackend({"sd15": pool}, "sd15", patience)
        await front.start()
        try:
            yield front, pool
        finally:
            await front.close()


@asynccontextmanager
async def open_remote(settings: Settings) -> AsyncIterator[Backend]:
    """Open a front over one engine host."""
    async with open_fleet(settings, 1) as (front, _):
        yield front


async def generate(
    backend: Backend,
    request: GenerationRequest,
    on_event: Callable[[Event], None] = lambda _: None,
    timeline: Timeline | None = None,
) -> list[Event]:
    """Run a request, and return its events."""
    events: list[Event] = []

    def note(event: Event) -> None:
        events.append(event)
        on_event(event)

    async with backend.prepare(request, note, timeline or Timeline()) as prepared:
        completed = await backend.run(prepared, note)
    assert isinstance(completed, Completed)
    return [*events, completed]


async def begin(
    backend: Backend,
    request: GenerationRequest,
    kind: type[Event],
    timeline: Timeline | None = None,
) -> asyncio.Task[list[Event]]:
    """Start a request, and wait for its first event of a kind; raise its error if it fails."""
    reached = asyncio.Event()
    running = asyncio.ensure_future(
        generate(
            backend,
            request,
            lambda event: reached.set() if isinstance(event, kind) else None,
            timeline,
        )
    )
    reaching = asyncio.ensure_future(reached.wait())
    await asyncio.wait({running, reaching}, return_when=asyncio.FIRST_COMPLETED)
    if not reached.is_set():
        reaching.cancel()
        await running
    return running


async def cancel(*tasks: asyncio.Task[list[Event]]) -> None:
    """Cancel tasks, and wait for their ends."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def has_logs(folder: Path) -> bool:
    """Return whether a folder holds logs of runs."""
    return any(folder.glob("*.log"))


async def become(holds: Callable[[], bool]) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it has not come to hold in 20 s.
    """
    for _ in range(4000):
        if holds():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the condition has not come to hold")
