"""Models come and go under a memory budget, and never while they are in use."""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from safelight_service.core.errors import ModelFailedError, ModelLoadingError, StoppingError
from safelight_service.core.events import ModelLoading
from safelight_service.core.model import ModelState
from safelight_service.core.request import GenerationRequest, Parameters, ResolvedAdapter
from safelight_service.engine import Engine
from safelight_service.engine.lora.effects import Factors
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.models import registry
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.placement import choose_device
from safelight_service.engine.models.registry import ModelRegistry
from safelight_service.settings import AdapterSettings, ConfigurationError, ModelSettings, Settings
from support.engine.job_runs import SMALL, collect
from support.engine.tiny_models import MERGING, TinyModels

NAMES = ("first", "second", "third")
SIZE = 100
ADAPTERS = ("one", "two", "three")
ADAPTER_SIZE = 10


class Models:
    """A registry of models that are all of SIZE bytes, and of which none is real."""

    def __init__(self, budget_bytes: float) -> None:
        self.loads: list[str] = []
        self.warmed: list[str] = []
        self.broken: set[str] = set()
        self.most_resident = len(NAMES)
        """How many models the device has memory for, whatever the budget is."""
        self.is_warming = asyncio.Event()
        self.is_warm = asyncio.Event()
        self.is_warm.set()
        adapters = [AdapterSettings(name=name, source=name, preload=False) for name in ADAPTERS]
        settings = [
            ModelSettings(name=name, source=name, preload=False, adapters=adapters)
            for name in NAMES
        ]
        self.registry = ModelRegistry(
            settings, "", lambda _: budget_bytes, self._load, self._read_lora, self._warm_up
        )

    def _load(self, settings: ModelSettings) -> LoadedModel:
        self.loads.append(settings.name)
        if settings.name in self.broken:
            raise OSError("no such file")
        if len(self.resident()) >= self.most_resident:
            raise torch.OutOfMemoryError
        loaded = SimpleNamespace(
            name=settings.name,
            size_bytes=SIZE,
            revision="",
            capabilities=None,
            adapter=SimpleNamespace(execution_device=torch.device("cpu")),
            forget_adapters=lambda: None,
        )
        return cast(LoadedModel, loaded)

    def _read_lora(self, settings: AdapterSettings, _: LoadedModel) -> Lora:
        self.loads.append(settings.name)
        if settings.name in self.broken:
            raise OSError("no such file")
        size = torch.empty(ADAPTER_SIZE, dtype=torch.uint8)
        return Lora(settings.name, "", {"unet": {"layer": Factors(size, size[:0])}})

    async def _warm_up(self, model: LoadedModel) -> None:
        self.warmed.append(model.name)
        self.is_warming.set()
        await self.is_warm.wait()

    async def use(self, name: str, *adapters: str) -> None:
        """Use a model as a generation does."""
        model = self.registry.find(name)
        with model.hold():
            async for _ in model.wait_until_loaded(may_wait=True):
                pass
            uses = [ResolvedAdapter(adapter, 0.5) for adapter in adapters]
            async with model.mix(uses, lambda _: None) as mixture:
                assert [(lora.name, scale) for lora, scale in mixture.parts] == [
                    (adapter, 0.5) for adapter in adapters
                ]

    def resident(self) -> set[str]:
        """Names of the models in memory."""
        states = {info.name: info.state for info in self.registry.list()}
        return {name for name, state in states.items() if state is ModelState.READY}


def run(act: Callable[[Models], Awaitable[None]], budget_bytes: float) -> None:
    async def run() -> None:
        models = Models(budget_bytes)
        try:
            await act(models)
        finally:
            models.registry.close()

    asyncio.run(run())


def test_the_least_recently_used_model_makes_room() -> None:
    async def act(models: Models) -> None:
        for name in ("first", "second", "first", "third"):
            await models.use(name)
        assert models.resident() == {"first", "third"}
        await models.use("second")
        assert models.resident() == {"second", "third"}
        assert models.loads == ["first", "second", "third", "second"]
        assert models.warmed == models.loads

    run(act, budget_bytes=2 * SIZE)


def test_the_least_recently_used_adapter_makes_room_for_another() -> None:
    async def act(models: Models) -> None:
        await models.use("first", "one", "two")
        await models.use("first", "one")
        await models.use("first", "three")
        assert models.registry.resident_bytes() == {"first": SIZE + 2 * ADAPTER_SIZE}
        await models.use("first", "one", "two")
        assert models.loads == ["first", "one", "two", "three", "two"]

    run(act, budget_bytes=SIZE + 2 * ADAPTER_SIZE)


def test_an_adapter_makes_an_idle_model_leave() -> None:
    async def act(models: Models) -> None:
        await models.use("second")
        await models.use("first", "one")
        assert models.resident() == {"first"}
        assert models.registry.resident_bytes() == {"first": SIZE + ADAPTER_SIZE}

    run(act, budget_bytes=2 * SIZE)


def test_an_adapter_in_use_stays_beyond_the_budget() -> None:
    async def act(models: Models) -> None:
        await models.use("first", *ADAPTERS)
        assert models.loads == ["first", *ADAPTERS]

    run(act, budget_bytes=SIZE)


def test_an_adapter_is_read_once_for_requests_that_ask_at_once() -> None:
    async def act(models: Models) -> None:
        await asyncio.gather(*(models.use("first", "one") for _ in range(3)))
        assert models.loads == ["first", "one"]

    run(act, budget_bytes=2 * SIZE)


def test_a_broken_adapter_fails_its_requests_only() -> None:
    async def act(models: Models) -> None:
        models.broken.add("one")
        with pytest.raises(ModelFailedError, match="adapter 'one' of model 'first'"):
            await models.use("first", "one")
        await models.use("first", "two")
        models.broken.clear()
        await models.use("first", "one")

    run(act, budget_bytes=2 * SIZE)


def test_a_model_in_use_stays_and_the_next_one_waits_for_it() -> None:
    async def act(models: Models) -> None:
        first = models.registry.find("first")
        with first.hold():
            async for _ in first.wait_until_loaded(may_wait=True):
                pass
            waiting = asyncio.ensure_future(models.use("second"))
            await asyncio.sleep(0)
            assert not waiting.done()
            assert models.resident() == {"first"}
        await waiting
        assert models.resident() == {"second"}

    run(act, budget_bytes=SIZE)


def test_models_that_are_asked_for_at_once_keep_to_the_budget() -> None:
    async def act(models: Models) -> None:
        models.is_warm.clear()
        both = asyncio.gather(models.use("first"), models.use("second"))
        await models.is_warming.wait()
        assert models.loads == ["first"]
        models.is_warm.set()
        await both
        assert models.loads == ["first", "second"]
        assert models.resident() == {"second"}

    run(act, budget_bytes=SIZE)


def test_a_model_larger_than_the_budget_is_served_alone() -> None:
    async def act(models: Models) -> None:
        await models.use("first")
        await models.use("second")
        assert models.resident() == {"second"}

    run(act, budget_bytes=SIZE / 2)


def test_a_model_that_finds_no_memory_takes_that_of_an_idle_one() -> None:
    """Its size is not known before it is loaded, and a budget may promise too much."""

    async def act(models: Models) -> None:
        models.most_resident = 1
        await models.use("first")
        await models.use("second")
        assert models.resident() == {"second"}
        assert models.loads == ["first", "second", "second"]

    run(act, budget_bytes=3 * SIZE)


def test_a_model_that_finds_no_memory_alone_fails() -> None:
    async def act(models: Models) -> None:
        models.most_resident = 0
        with pytest.raises(ModelFailedError):
            await models.use("first")

    run(act, budget_bytes=3 * SIZE)


def test_models_on_other_devices_make_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def choose(setting: str) -> torch.device:
        return torch.device("cpu" if setting == "auto" else "meta")

    async def act(models: Models) -> None:
        monkeypatch.setattr(registry, "choose_device", choose)
        second = models.registry.find("second")
        second.settings = second.settings.model_copy(update={"device": "mps"})
        for name in ("first", "second", "third"):
            await models.use(name)
        assert models.resident() == {"second", "third"}

    run(act, budget_bytes=SIZE)


def test_a_model_that_failed_is_tried_again() -> None:
    async def act(models: Models) -> None:
        models.broken.add("first")
        with pytest.raises(ModelFailedError):
            await models.use("first")
        assert models.registry.describe("first").state is ModelState.FAILED
        models.broken.clear()
        await models.use("first")
        assert models.resident() == {"first"}

    run(act, budget_bytes=SIZE)


def test_a_caller_that_does_not_wait_starts_the_loading_all_the_same() -> None:
    async def act(models: Models) -> None:
        model = models.registry.find("first")
        with pytest.raises(ModelLoadingError) as raised:
            async for _ in model.wait_until_loaded(may_wait=False):
                pass
        assert raised.value.retry_after_s > 0
        told = [event async for event in model.wait_until_loaded(may_wait=True)]
        assert isinstance(told[0], ModelLoading)
        assert models.loads == ["first"]

    run(act, budget_bytes=SIZE)


def test_nobody_waits_for_a_model_any_more_once_the_service_stops() -> None:
    async def act(models: Models) -> None:
        models.is_warm.clear()
        waiting = asyncio.ensure_future(models.use("first"))
        await models.is_warming.wait()
        models.registry.close()
        with pytest.raises(StoppingError):
            await waiting

    run(act, budget_bytes=SIZE)


def test_a_model_is_served_while_another_one_is_being_loaded(tiny_models: TinyModels) -> None:
    async def act() -> None:
        models: tuple[Any, ...] = (
            tiny_models.settings("sd15"),
            tiny_models.settings("sdxl").model_copy(update={"preload": False}),
        )
        engine = Engine(Settings(models=models, torch_threads=1, batching=MERGING))
        await engine.start()
        try:
            with pytest.raises(ModelLoadingError):
                await collect(engine, request("sdxl"))
            events = await collect(engine, request("sd15"))
            assert type(events[-1]).__name__ == "Completed"
        finally:
            await engine.close()

    def request(model: str) -> GenerationRequest:
        return GenerationRequest("a red circle", Parameters(**SMALL), model)

    asyncio.run(act())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_loaded(device: str) -> None:
    settings = ModelSettings(name="first", source="first", preload=False, device=device)
    with pytest.raises(ConfigurationError, match=f"model 'first': device: .*\"{device}\""):
        Engine(Settings(models=(settings,)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_not_chosen() -> None:
    with pytest.raises(ConfigurationError, match='device: cannot use "cuda", since '):
        choose_device("cuda")
