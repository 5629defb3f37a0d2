"""ModelEntry: one served model, its settings, its state and its users."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager

import structlog

from safelight_service.core.errors import ModelFailedError, ModelLoadingError, StoppingError
from safelight_service.core.events import EventCallback, ModelLoading
from safelight_service.core.model import ModelState
from safelight_service.core.observer import Observer
from safelight_service.core.request import ResolvedAdapter
from safelight_service.engine.lora.lora import Mixture
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.lora_entry import LoraEntry, ReadLora
from safelight_service.engine.models.resident import Resident
from safelight_service.settings import ModelSettings

_log = structlog.get_logger()

_REPORT_EVERY_S = 0.5
_RETRY_AFTER_S = 10.0
"""Retry delay for a model whose load time has not been measured yet."""


class ModelEntry(Resident[LoadedModel]):
    """One served model, loaded when it is first needed. Use it on one event loop."""

    def __init__(
        self,
        settings: ModelSettings,
        make_ready: "MakeReady",
        read_lora: ReadLora,
        released: asyncio.Event,
        observer: Observer,
    ) -> None:
        super().__init__(released)
        self.settings = settings
        self.loras = {
            adapter.name: LoraEntry(settings.name, adapter, read_lora, released)
            for adapter in settings.adapters
        }
        """Its adapters by name."""
        self._make_ready = make_ready
        self._observer = observer
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
    def resident_bytes(self) -> int:
        """Bytes of the model and of its adapters in memory."""
        loras = self.loras.values()
        return self.size_bytes + sum(lora.size_bytes for lora in loras if lora.loaded is not None)

    def forget(self) -> None:
        """Release the loaded model and its adapters."""
        super().forget()
        for lora in self.loras.values():
            lora.forget()

    @asynccontextmanager
    async def mix(
        self, uses: Sequence[ResolvedAdapter], on_event: EventCallback
    ) -> AsyncIterator[Mixture]:
        """Load the adapters of a request; they stay loaded within the block.

        Raises:
            ModelFailedError: one of them cannot be loaded.
            StoppingError: the service takes no new work.
        """
        model = self._loaded
        assert model is not None
        entries = [self.loras[use.name] for use in uses]
        with ExitStack() as stack:
            for entry in entries:
                stack.enter_context(entry.hold())
            for entry in entries:
                async for loading in entry.wait_until_loaded(model):
                    on_event(loading)
            loras = [await entry.load(model) for entry in entries]
            yield Mixture(tuple(zip(loras, (use.scale for use in uses), strict=True)))

    def start_loading(self) -> asyncio.Future[LoadedModel]:
        """Load the model in another thread, unless it is being loaded already.

        The future raises ModelFailedError; the reason is logged.
        """
        if self._loading is None:
            self._loading_since = time.monotonic()
            self._loading = asyncio.ensure_future(self._load())
        return self._loading

    async def wait_until_loaded(self, *, may_wait: bool) -> AsyncIterator[ModelLoading]:
        """Yield the progress of loading until the model is in memory.

        Raises:
            ModelLoadingError: the model is not in memory and `may_wait` is false; loading
                continues.
            ModelFailedError: the model cannot be loaded.
            StoppingError: the service takes no new work.
        """
        if self._loaded is not None:
            return
        loading = self.start_loading()
        if not may_wait:
            raise ModelLoadingError(self.settings.name, self._remaining_s())
        while not loading.done():
            yield self._describe_loading()
            await asyncio.wait({loading}, timeout=_REPORT_EVERY_S)
        if loading.cancelled():
            raise StoppingError
        await loading

    def stop_loading(self) -> None:
        """Cancel loading; `wait_until_loaded` raises StoppingError."""
        if self._loading is not None:
            self._loading.cancel()
        for lora in self.loras.values():
            lora.stop_loading()

    async def _load(self) -> LoadedModel:
        log = _log.bind(model=self.settings.name)
        try:
            self._loaded = await self._make_ready(self)
            await self._preload_adapters(self._loaded)
        except Exception as reason:
            self.forget()
            self._has_failed = True
            log.error("model_failed", error_type=type(reason).__name__, error=str(reason))
            raise ModelFailedError(self.settings.name) from reason
        finally:
            self._last_load_s = time.monotonic() - self._loading_since
            self._loading = None
        log.info("model_loaded", seconds=round(self._last_load_s, 2))
        self._observer.model_loaded(self.settings.name, self._last_load_s)
        return self._loaded

    async def _preload_adapters(self, model: LoadedModel) -> None:
        with self.hold():
            for lora in self.loras.values():
                if lora.settings.preload:
                    await lora.load(model)

    def _describe_loading(self) -> ModelLoading:
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
"""Makes room for a model, loads it and warms it up."""
