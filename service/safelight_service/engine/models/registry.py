"""ModelRegistry: all served models, of which as many are in memory as fit."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
import torch

from safelight_service.core.errors import ModelNotFoundError
from safelight_service.core.model import ModelInfo
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.engine.hardware import free_memory, is_out_of_memory
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.models.entry import ModelEntry
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.lora_entry import LoraEntry
from safelight_service.engine.models.placement import check_device, choose_device
from safelight_service.settings import AdapterSettings, ConfigurationError, ModelSettings

T = TypeVar("T")

_log = structlog.get_logger()

LoadModel = Callable[[ModelSettings], LoadedModel]
"""Loads a model, in a thread of its own."""

ReadLora = Callable[[AdapterSettings, LoadedModel], Lora]
"""Reads an adapter of a loaded model, in a thread of its own."""

WarmUp = Callable[[LoadedModel], Awaitable[None]]
"""Makes a first image with a model that has just been loaded."""


class ModelRegistry:
    """Served models by name; evicts idle ones to keep the weights within a budget."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        default_model: str,
        find_budget: Callable[[torch.device], float],
        load: LoadModel,
        read_lora: ReadLora,
        warm_up: WarmUp,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        """Check that the models' devices exist; load nothing yet.

        Raises:
            ConfigurationError: torch cannot use one of them on this machine.
        """
        for model in models:
            try:
                check_device(model.device)
            except ConfigurationError as error:
                raise ConfigurationError(f"model {model.name!r}: {error}") from None
        self._is_loading = asyncio.Lock()
        self._released = asyncio.Event()
        self._models = {
            model.name: ModelEntry(
                model, self._make_ready, self._read_lora, self._released, observer
            )
            for model in models
        }
        self.default = default_model or models[0].name
        self._find_budget = functools.cache(find_budget)
        """Returns the bytes for weights on a device; must be called before the first are loaded."""
        self._load = load
        self._read = read_lora
        self._warm_up = warm_up

    def find(self, name: str) -> ModelEntry:
        """Return the entry of a model; an empty name stands for the default one.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        model = self._models.get(name or self.default)
        if model is None:
            raise ModelNotFoundError(name, sorted(self._models))
        return model

    def describe(self, name: str) -> ModelInfo:
        """Describe a model.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        model = self.find(name)
        loaded = model.loaded
        return ModelInfo(
            name=model.settings.name,
            revision=loaded.revision if loaded else model.settings.revision,
            is_default=model.settings.name == self.default,
            state=model.state,
            capabilities=loaded.capabilities if loaded else None,
        )

    def list(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first, the others by name."""
        names = sorted(self._models, key=lambda name: (name != self.default, name))
        return tuple(self.describe(name) for name in names)

    async def preload(self) -> None:
        """Load the models that are configured to be preloaded.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """
        for model in self._models.values():
            if model.settings.preload:
                await model.start_loading()

    def resident_bytes(self) -> dict[str, int]:
        """Return the bytes of each model in memory; safe to call from any thread."""
        return {name: model.resident_bytes for name, model in self._models.items() if model.loaded}

    def close(self) -> None:
        """Stop loading."""
        for model in self._models.values():
            model.stop_loading()

    async def _make_ready(self, model: ModelEntry) -> LoadedModel:
        # Load one model at a time, since each counts the memory of those before it.
        async with self._is_loading:
            device = choose_device(model.settings.device)
            await _run_in_a_thread(self._find_budget, device)
            await self._make_room(device, model.size_bytes)
            loaded = await self._load_with_room(device, model.settings)
            model.size_bytes = loaded.size_bytes
            # On the first load the size is known only now.
            await self._make_room(device, model.size_bytes)
            if model.settings.warm_up:
                await self._warm_up(loaded)
            return loaded

    async def _read_lora(self, lora: LoraEntry, model: LoadedModel) -> Lora:
        """Read an adapter, and evict idle models and adapters while it does not fit.

        It never waits for those in use, which may wait for it.
        """
        loaded = await _run_in_a_thread(self._read, lora.settings, model)
        lora.size_bytes = loaded.size_bytes
        device = model.adapter.execution_device
        while True:
            resident = self._resident(device)
            needed = sum(each.size_bytes for each in resident) + lora.size_bytes
            idle = [each for each in resident if each.is_idle]
            if needed <= self._find_budget(device) or not idle:
                return loaded
            await self._evict(resident)

    async def _load_with_room(self, device: torch.device, settings: ModelSettings) -> LoadedModel:
        """Load a model; while memory runs out, evict idle models and try again.

        Memory may run out if the size was unknown, or if the budget exceeds the device.
        """
        while True:
            try:
                return await _run_in_a_thread(self._load, settings)
            except Exception as error:
                resident = self._resident(device)
                if not is_out_of_memory(error) or not resident:
                    raise
            await self._evict(resident)

    async def _make_room(self, device: torch.device, size_bytes: int) -> None:
        """Evict idle models, the least recently used first, until that many bytes fit.

        Waits for models in use. A model larger than the budget gets all of it.
        """
        while True:
            resident = self._resident(device)
            needed = sum(model.size_bytes for model in resident) + size_bytes
            if needed <= self._find_budget(device) or not resident:
                return
            await self._evict(resident)

    def _resident(self, device: torch.device) -> Sequence[ModelEntry | LoraEntry]:
        """Return the models and adapters in the memory of a device."""
        models = [
            model
            for model in self._models.values()
            if model.loaded is not None and choose_device(model.settings.device) == device
        ]
        loras = [
            lora for model in models for lora in model.loras.values() if lora.loaded is not None
        ]
        return [*models, *loras]

    async def _evict(self, resident: Sequence[ModelEntry | LoraEntry]) -> None:
        """Evict the least recently used that is idle, or wait until one is released."""
        self._released.clear()
        idle = [model for model in resident if model.is_idle]
        if not idle:
            await self._released.wait()
            return
        oldest = min(idle, key=lambda model: model.used_at)
        oldest.forget()
        kind = "model" if isinstance(oldest, ModelEntry) else "adapter"
        _log.info(f"{kind}_evicted", **{kind: oldest.settings.name})
        await _run_in_a_thread(free_memory)


async def _run_in_a_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread that ends with it.

    Loading leaves its thread with a team of OpenMP threads. While there are more of those than
    processors, all teams wait for work asleep instead of spinning, which slows each step down.
    """
    loader = ThreadPoolExecutor(1, thread_name_prefix="safelight-loader")
    try:
        return await asyncio.get_running_loop().run_in_executor(loader, function, *arguments)
    finally:
        loader.shutdown(wait=False, cancel_futures=True)
