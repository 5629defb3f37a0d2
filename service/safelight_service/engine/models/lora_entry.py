"""LoraEntry: one adapter of a served model, loaded when it is first needed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog

from safelight_service.core.errors import ModelFailedError, StoppingError
from safelight_service.core.events import ModelLoading
from safelight_service.engine.lora.lora import Lora
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.resident import Resident
from safelight_service.settings import AdapterSettings

_log = structlog.get_logger()

_REPORT_EVERY_S = 0.5


class LoraEntry(Resident[Lora]):
    """One adapter of a model. Use it on one event loop."""

    def __init__(
        self,
        model: str,
        settings: AdapterSettings,
        make_ready: "ReadLora",
        released: asyncio.Event,
    ) -> None:
        super().__init__(released)
        self.settings = settings
        self._model = model
        self._make_ready = make_ready
        self._loading: asyncio.Future[Lora] | None = None
        self._owner: LoadedModel | None = None

    async def load(self, model: LoadedModel) -> Lora:
        """Load the adapter, unless it is in memory or being loaded already.

        Raises:
            ModelFailedError: it cannot be loaded; the reason is logged.
        """
        async for _ in self.wait_until_loaded(model):
            pass
        assert self._loaded is not None
        return self._loaded

    async def wait_until_loaded(self, model: LoadedModel) -> AsyncIterator[ModelLoading]:
        """Yield the progress of loading until the adapter is in memory.

        Raises:
            ModelFailedError: it cannot be loaded; the reason is logged.
            StoppingError: the service takes no new work.
        """
        if self._loaded is not None:
            return
        if self._loading is None:
            self._loading = asyncio.ensure_future(self._load(model))
        loading, began_at = self._loading, time.monotonic()
        while not (await asyncio.wait({loading}, timeout=_REPORT_EVERY_S))[0]:
            yield ModelLoading(self._model, None, time.monotonic() - began_at)
        if loading.cancelled():
            raise StoppingError
        await loading

    def stop_loading(self) -> None:
        """Cancel loading; `wait_until_loaded` raises StoppingError."""
        if self._loading is not None:
            self._loading.cancel()

    def forget(self) -> None:
        """Release the adapter."""
        super().forget()
        if self._owner is not None:
            self._owner.forget_adapters()
            self._owner = None

    async def _load(self, model: LoadedModel) -> Lora:
        log = _log.bind(model=self._model, adapter=self.settings.name)
        began_at = time.monotonic()
        try:
            self._loaded = await self._make_ready(self, model)
            self._owner = model
        except Exception as reason:
            log.error("adapter_failed", error_type=type(reason).__name__, error=str(reason))
            raise ModelFailedError(self._model, self.settings.name) from reason
        finally:
            self._loading = None
        log.info("adapter_loaded", seconds=round(time.monotonic() - began_at, 2))
        return self._loaded


ReadLora = Callable[[LoraEntry, LoadedModel], Awaitable[Lora]]
"""Reads an adapter of a loaded model, and makes room for it."""
