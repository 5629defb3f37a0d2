"""Device workers: devices run in parallel, each with its own thread."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
import torch

from safelight_service.core.errors import DeviceLostError, StoppingError
from safelight_service.core.events import Completed
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.engine import Engine
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.settings import Settings
from support.engine.job_runs import SMALL, collect, count_forwards
from support.engine.tiny_models import MERGING, TinyModels

FAMILIES = ("sd15", "flux-dev")


def find(engine: Engine, family: str) -> LoadedModel:
    model = engine.find_loaded(family)
    assert model is not None
    return model


def request(family: str) -> GenerationRequest:
    return GenerationRequest("a red circle", Parameters(**SMALL), family)


def with_two_devices(tiny_models: TinyModels, act: Callable[[Engine], Awaitable[None]]) -> None:
    """Run a test on an engine whose second model is on a device with another name."""

    async def run() -> None:
        models = tuple(map(tiny_models.settings, FAMILIES))
        engine = Engine(Settings(models=models, torch_threads=1, batching=MERGING))
        await engine.start()
        find(engine, "flux-dev").adapter.execution_device = torch.device("cpu", 1)
        try:
            await act(engine)
        finally:
            await engine.close()

    asyncio.run(run())


def test_models_on_two_devices_run_at_the_same_time(tiny_models: TinyModels) -> None:
    """A forward of either model lasts until one of the other has started."""
    begun = {family: threading.Event() for family in FAMILIES}

    def meet(own: str, other: str) -> None:
        begun[own].set()
        assert begun[other].wait(30)

    async def act(engine: Engine) -> None:
        with (
            count_forwards(find(engine, "sd15"), lambda: meet("sd15", "flux-dev")),
            count_forwards(find(engine, "flux-dev"), lambda: meet("flux-dev", "sd15")),
        ):
            made = await asyncio.gather(*(collect(engine, request(name)) for name in FAMILIES))
        assert all(isinstance(events[-1], Completed) for events in made)

    with_two_devices(tiny_models, act)


def test_a_device_that_is_lost_ends_the_work_of_all(tiny_models: TinyModels) -> None:
    def fail() -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    async def act(engine: Engine) -> None:
        hears = threading.Event()
        with (
            pytest.MonkeyPatch.context() as patch,
            count_forwards(find(engine, "sd15"), fail),
            count_forwards(find(engine, "flux-dev"), lambda: hears.wait(30)),
        ):
            patch.setattr("safelight_service.engine.hardware.is_answering", lambda _: False)
            made = [asyncio.ensure_future(collect(engine, request(name))) for name in FAMILIES]
            await engine.wait_until_lost()
            hears.set()
            for generation in made:
                with pytest.raises(DeviceLostError):
                    await generation
        assert engine.is_lost

    with_two_devices(tiny_models, act)


def test_a_device_that_comes_up_while_the_service_stops_takes_no_work(
    tiny_models: TinyModels,
) -> None:
    async def act(engine: Engine) -> None:
        model = find(engine, "flux-dev")
        engine.drain()
        model.adapter.execution_device = torch.device("cpu", 2)
        with pytest.raises(StoppingError):
            await collect(engine, request("flux-dev"))

    with_two_devices(tiny_models, act)
