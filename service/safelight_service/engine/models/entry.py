"""ModelEntry: one served model, its settings, its state and its users."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import structlog

from safelight_service.core.errors import ModelFailedError, ModelLoadingError, StoppingError
from safelight_service.core.events import ModelLoading
from safelight_service.core.model import ModelState
from safelight_service.core.observer import Observer
from safelight_service.engine.models.loading import LoadedModel
from safelight_service.settings import ModelSettings

_log = structlog.get_logger()

_REPORT_EVERY_S = 0.5
_RETRY_AFTER_S = 10.0
"""Retry delay for a model whose load time has not been measured yet."""


class ModelEntry:
    """One served model, loaded when it is first needed. Use it on one event loop."""

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
        """Bytes of the weights, once they have been loaded."""
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
        """The loaded model, if it is in memory."""
        return self._loaded

    @property
    def is_idle(self) -> bool:
        """Whether the model is in memory and not in use."""
        return self._loaded is not None and self._user_count == 0

    def forget(self) -> None:
        """Release the loaded model."""
        self._loaded = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the model in memory within the block, once it is loaded."""
        self._user_count += 1
        try:
            yield
        finally:
            self._user_count -= 1
            self.used_at = time.monotonic()
            self._released.set()

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
