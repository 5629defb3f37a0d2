"""ModelRegistry: the models that are served, and which of them are in memory."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
import torch

from safelight_service.core.errors import (
    ModelFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    StoppingError,
)
from safelight_service.core.events import ModelLoading
from safelight_service.core.model import ModelInfo, ModelState
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.engine.hardware import free_memory, is_out_of_memory
from safelight_service.engine.models.loading import LoadedModel, check_device, choose_device
from safelight_service.settings import ConfigurationError, ModelSettings

T = TypeVar("T")

_log = structlog.get_logger()
_TELL_EVERY_S = 0.5
_RETRY_AFTER_S = 10.0
"""When to come back for a model whose load time has not been measured yet."""

LoadModel = Callable[[ModelSettings], LoadedModel]
"""Loads a model, in a thread of its own."""

WarmUp = Callable[[LoadedModel], Awaitable[None]]
"""Makes a first picture with a model that has just been loaded."""


class ModelEntry:
    """One model, loaded when it is first needed; belongs to one event loop."""

    def __init__(
        self,
        settings: ModelSettings,
        make_ready: "MakeReady",
        released: asyncio.Event,
        observer: Observer,
    ) -> None:
        self.settings = settings
        self.used_at = 0.0
        self.size_bytes = 0
        """Of the weights, once they have been loaded."""
        self._make_ready = make_ready
        self._released = released
        self._observer = observer
        self._user_count = 0
        self._loaded: LoadedModel | None = None
        self._loading: asyncio.Future[LoadedModel] | None = None
        self._loading_since = 0.0
        self._last_load_s: float | None = None
        self._has_failed = False

    @property
    def state(self) -> ModelState:
        """Whether the model can be used at once."""
        if self._loaded is not None:
            return ModelState.READY
        if self._loading is not None:
            return ModelState.LOADING
        return ModelState.FAILED if self._has_failed else ModelState.NOT_LOADED

    @property
    def loaded(self) -> LoadedModel | None:
        """The model in memory, if it is there."""
        return self._loaded

    @property
    def is_idle(self) -> bool:
        """Whether the model is in memory and nobody uses it."""
        return self._loaded is not None and self._user_count == 0

    def forget(self) -> None:
        """Let go of the model in memory."""
        self._loaded = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the model in memory, once it is there."""
        self._user_count += 1
        try:
            yield
        finally:
            self._user_count -= 1
            self.used_at = time.monotonic()
            self._released.set()

    def start_loading(self) -> asyncio.Future[LoadedModel]:
        """Load the model in another thread, unless that goes on already.

        The future raises ModelFailedError, after the reason has been logged.
        """
        if self._loading is None:
            self._loading_since = time.monotonic()
            self._loading = asyncio.ensure_future(self._load())
        return self._loading

    async def wait_until_loaded(self, *, may_wait: bool) -> AsyncIterator[ModelLoading]:
        """Yield what a caller is told until the model is in memory.

        Raises:
            ModelLoadingError: it is not there and `may_wait` is false; loading
                goes on.
            ModelFailedError: it cannot be loaded.
            StoppingError: the service takes no new work.
        """
        if self._loaded is not None:
            return
        loading = self.start_loading()
        if not may_wait:
            raise ModelLoadingError(self.settings.name, self._remaining_s())
        while not loading.done():
            yield self._tell()
            await asyncio.wait({loading}, timeout=_TELL_EVERY_S)
        if loading.cancelled():
            raise StoppingError
        await loading

    def stop_loading(self) -> None:
        """Let nobody wait any more for the model to be loaded."""
        if self._loading is not None:
            self._loading.cancel()

    async def _load(self) -> LoadedModel:
        log = _log.bind(model=self.settings.name)
        try:
            self._loaded = await self._make_ready(self)
        except Exception as reason:
            self._has_failed = True
            log.error("model_failed", error_type=type(reason).__name__, error=str(reason))
            raise ModelFailedError(self.settings.name) from reason
        finally:
            self._last_load_s = time.monotonic() - self._loading_since
            self._loading = None
        log.info("model_loaded", seconds=round(self._last_load_s, 2))
        self._observer.model_loaded(self.settings.name, self._last_load_s)
        return self._loaded

    def _tell(self) -> ModelLoading:
        elapsed = time.monotonic() - self._loading_since
        fraction = None
        if self._last_load_s is not None:
            fraction = min(elapsed / self._last_load_s, 0.99)
        return ModelLoading(self.settings.name, fraction, elapsed)

    def _remaining_s(self) -> float:
        if self._last_load_s is None:
            return _RETRY_AFTER_S
        return max(1.0, self._last_load_s - (time.monotonic() - self._loading_since))


MakeReady = Callable[[ModelEntry], Awaitable[LoadedModel]]
"""Loads a model and warms it up, after room has been made for it."""


class ModelRegistry:
    """All models that are served, by name, of which as many are in memory as fit a budget."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        default_model: str,
        find_budget: Callable[[torch.device], float],
        load: LoadModel,
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
            model.name: ModelEntry(model, self._make_ready, self._released, observer)
            for model in models
        }
        self.default = default_model or models[0].name
        self._find_budget = functools.cache(find_budget)
        """Bytes that the weights on a device may take, asked for before the first are there."""
        self._load = load
        self._warm_up = warm_up

    def find(self, name: str) -> ModelEntry:
        """Return the model of that name; the default one for an empty name.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        model = self._models.get(name or self.default)
        if model is None:
            raise ModelNotFoundError(name, sorted(self._models))
        return model

    def describe(self, name: str) -> ModelInfo:
        """Describe one model.

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
        """Load the models whose settings ask for it.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """
        for model in self._models.values():
            if model.settings.preload:
                await model.start_loading()

    def resident_bytes(self) -> dict[str, int]:
        """Return the size of each model in memory; from any thread."""
        return {name: model.size_bytes for name, model in self._models.items() if model.loaded}

    def close(self) -> None:
        """Stop loading."""
        for model in self._models.values():
            model.stop_loading()

    async def _make_ready(self, model: ModelEntry) -> LoadedModel:
        # One at a time, to the end: each has to reckon with the one before it.
        async with self._is_loading:
            device = choose_device(model.settings.device)
            await _run_in_a_thread(self._find_budget, device)
            await self._make_room(device, model.size_bytes)
            loaded = await self._load_with_room(device, model.settings)
            model.size_bytes = loaded.size_bytes
            # What its size was is known only now, the first time.
            await self._make_room(device, model.size_bytes)
            if model.settings.warm_up:
                await self._warm_up(loaded)
            return loaded

    async def _load_with_room(self, device: torch.device, settings: ModelSettings) -> LoadedModel:
        """Load a model; while memory runs out, let go of idle ones and try again.

        How large it is was not known, or the budget was more than the device has.
        """
        while True:
            try:
                return await _run_in_a_thread(self._load, settings)
            except Exception as error:
                resident = self._resident(device)
                if not is_out_of_memory(error) or not resident:
                    raise
            await self._let_go(resident)

    async def _make_room(self, device: torch.device, size_bytes: int) -> None:
        """Let go of idle models, the least recently used first, until that many bytes fit.

        Waits for models that are in use. What is larger than the budget gets all of it.
        """
        while True:
            resident = self._resident(device)
            needed = sum(model.size_bytes for model in resident) + size_bytes
            if needed <= self._find_budget(device) or not resident:
                return
            await self._let_go(resident)

    def _resident(self, device: torch.device) -> Sequence[ModelEntry]:
        """Return the models in the memory of a device."""
        return [
            model
            for model in self._models.values()
            if model.loaded is not None and choose_device(model.settings.device) == device
        ]

    async def _let_go(self, resident: Sequence[ModelEntry]) -> None:
        """Let go of the model that was not used for longest, or wait until one is idle."""
        self._released.clear()
        idle = [model for model in resident if model.is_idle]
        if not idle:
            await self._released.wait()
            return
        oldest = min(idle, key=lambda model: model.used_at)
        oldest.forget()
        _log.info("model_evicted", model=oldest.settings.name)
        await _run_in_a_thread(free_memory)


async def _run_in_a_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in a thread that ends with it.

    Loading leaves its thread with a team of OpenMP threads. As long as there are more of those in
    the process than processors, every team waits for work asleep, and not spinning, which slows
    each step of the device down.
    """
    loader = ThreadPoolExecutor(1, thread_name_prefix="safelight-loader")
    try:
        return await asyncio.get_running_loop().run_in_executor(loader, function, *arguments)
    finally:
        loader.shutdown(wait=False, cancel_futures=True)
