"""The interface of backends, held by every kind of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from safelight_service.core.backend import Backend
from safelight_service.core.errors import (
    DeadlineError,
    InvalidRequestError,
    ModelNotFoundError,
    QueueFullError,
    StoppingError,
)
from safelight_service.core.events import (
    Accepted,
    Completed,
    Image,
    Preview,
    Progress,
    Queued,
)
from safelight_service.core.model import ModelState
from safelight_service.core.request import Parameters, PreviewOptions
from safelight_service.core.timeline import Timeline
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.ray_cluster import RayCluster
from tests.service.fleet.backends import (
    LONG,
    REQUEST,
    OpenBackend,
    become,
    begin,
    cancel,
    generate,
    open_local,
    open_remote,
    settings_of,
)

WithBackend = Callable[[Callable[[Backend], Awaitable[None]]], None]


@pytest.fixture(
    params=["local", "remote", pytest.param("ray", marks=pytest.mark.ray)],
)
def with_backend(request: pytest.FixtureRequest, tiny_models: TinyModels) -> WithBackend:
    """Run a coroutine function with a backend of each kind, which runs one generation at once."""
    open_backend: OpenBackend
    match request.param:
        case "local":
            open_backend = open_local
        case "remote":
            open_backend = open_remote
        case _:
            cluster: RayCluster = request.getfixturevalue("ray_cluster")
            open_backend = cluster.open

    def run(act: Callable[[Backend], Awaitable[None]]) -> None:
        async def main() -> None:
            opened = open_backend(settings_of(tiny_models))
            async with asyncio.timeout(60), opened as backend:
                await act(backend)

        asyncio.run(main())

    return run


def test_a_generation_is_accepted_reports_each_step_and_completes(
    with_backend: WithBackend,
) -> None:
    async def act(backend: Backend) -> None:
        timeline = Timeline()
        events = await generate(backend, replace(REQUEST, generation_id="g1"), timeline=timeline)
        accepted, completed = events[0], events[-1]
        assert isinstance(accepted, Accepted)
        assert (accepted.generation_id, accepted.model) == ("g1", "sd15")
        assert accepted.request.parameters.seed == SMALL["seed"]
        assert [type(event) for event in events].count(Accepted) == 1
        steps = [event.step for event in events if isinstance(event, Progress)]
        assert steps == sorted(steps)
        assert steps[-1] == SMALL["num_inference_steps"]
        images = [event for event in events if isinstance(event, Image)]
        assert [image.index for image in images] == [0]
        assert isinstance(completed, Completed)
        assert completed.step_count == SMALL["num_inference_steps"]
        assert completed.timings.denoise_s > 0
        assert completed.usage.image_count == 1
        assert completed.usage.device_time_s > 0
        assert timeline.device_time_s == completed.usage.device_time_s
        assert completed.timings.total_s >= completed.timings.denoise_s
        assert timeline.model == "sd15"
        assert timeline.pixel_count == SMALL["width"] * SMALL["height"]
        assert timeline.queued_at is not None
        assert timeline.started_at is not None
        assert timeline.began_at <= timeline.queued_at <= timeline.started_at
        assert len(timeline.images[0].step_ends) == SMALL["num_inference_steps"]

    with_backend(act)


def test_the_same_request_gives_the_same_bytes(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        first, second = [
            [event.sha256 for event in await generate(backend, REQUEST) if isinstance(event, Image)]
            for _ in range(2)
        ]
        assert first == second

    with_backend(act)


def test_previews_arrive(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        request = replace(REQUEST, preview=PreviewOptions(interval_steps=1))
        events = await generate(backend, request)
        assert any(isinstance(event, Preview) for event in events)

    with_backend(act)


def test_all_violations_of_a_request_arrive(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        request = replace(REQUEST, parameters=Parameters(width=65, num_inference_steps=0))
        with pytest.raises(InvalidRequestError) as refused:
            await generate(backend, request)
        fields = {violation.field for violation in refused.value.violations}
        assert fields == {"parameters.width", "parameters.num_inference_steps"}

    with_backend(act)


def test_an_unknown_model_is_refused(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        with pytest.raises(ModelNotFoundError, match="sd15"):
            await generate(backend, replace(REQUEST, model="dream"))
        with pytest.raises(ModelNotFoundError, match="sd15"):
            backend.get_model("dream")

    with_backend(act)


def test_models_are_described(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        (model,) = backend.list_models()
        assert model == backend.get_model("")
        assert (model.name, model.is_default, model.state) == ("sd15", True, ModelState.READY)
        assert model.capabilities is not None

    with_backend(act)


def test_a_cancelled_generation_frees_the_device(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        running = await begin(backend, LONG, Progress)
        assert backend.stats().running_count == 1
        await cancel(running)
        assert running.cancelled()
        await become(lambda: backend.stats().running_count == 0)

    with_backend(act)


def test_a_deadline_that_cannot_be_met_is_refused(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        await generate(backend, REQUEST)  # measures the cost of a step
        late = replace(LONG, deadline_at=time.monotonic() + 0.01)
        with pytest.raises(DeadlineError):
            await generate(backend, late)

    with_backend(act)


def test_a_full_queue_refuses_with_a_delay(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        both = await begin(backend, LONG, Progress), await begin(backend, LONG, Queued)
        with pytest.raises(QueueFullError) as refused:
            await generate(backend, LONG)
        assert refused.value.retry_after_s > 0
        await cancel(*both)

    with_backend(act)


def test_a_draining_backend_refuses_work(with_backend: WithBackend) -> None:
    async def act(backend: Backend) -> None:
        backend.drain()
        with pytest.raises(StoppingError):
            await generate(backend, REQUEST)

    with_backend(act)


def test_draining_ends_waiting_work_and_lets_running_work_finish(
    with_backend: WithBackend,
) -> None:
    async def act(backend: Backend) -> None:
        running = await begin(backend, LONG, Progress)
        waiting = await begin(backend, LONG, Queued)
        backend.drain()
        with pytest.raises(StoppingError):
            await waiting
        assert not running.done()
        await cancel(running)

    with_backend(act)
