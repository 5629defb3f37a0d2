"""Catalog: the models that are served, and whether each is in memory."""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from safelight_service.capabilities import ModelInfo, ModelState
from safelight_service.engine.loading import LoadedModel, load_model
from safelight_service.engine.widths import ProfileStore
from safelight_service.errors import ModelFailedError, ModelLoadingError, ModelNotFoundError
from safelight_service.generation import ModelLoading
from safelight_service.settings import BatchingSettings, ModelSettings

_log = structlog.get_logger()
_TELL_EVERY_S = 0.5
_RETRY_AFTER_S = 10.0
"""When to come back for a model whose load time has not been measured yet."""


class ServedModel:
    """One model, loaded when it is first needed; belongs to one event loop."""

    def __init__(
        self,
        settings: ModelSettings,
        load: Callable[[ModelSettings], LoadedModel],
        loader: ThreadPoolExecutor,
    ) -> None:
        self.settings = settings
        self._load_model = load
        self._loader = loader
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
        """
        if self._loaded is not None:
            return
        loading = self.start_loading()
        if not may_wait:
            raise ModelLoadingError(self.settings.name, self._remaining_s())
        while not loading.done():
            yield self._tell()
            await asyncio.wait({loading}, timeout=_TELL_EVERY_S)
        await loading

    async def _load(self) -> LoadedModel:
        log = _log.bind(model=self.settings.name)
        try:
            loop = asyncio.get_running_loop()
            self._loaded = await loop.run_in_executor(self._loader, self._load_model, self.settings)
        except Exception as reason:
            self._has_failed = True
            log.error("model_failed", error_type=type(reason).__name__, error=str(reason))
            raise ModelFailedError(self.settings.name) from reason
        finally:
            self._last_load_s = time.monotonic() - self._loading_since
            self._loading = None
        log.info("model_loaded", seconds=round(self._last_load_s, 2))
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


class Catalog:
    """All models that are served, by name."""

    def __init__(
        self,
        models: Sequence[ModelSettings],
        default_model: str,
        batching: BatchingSettings,
        profiles: ProfileStore,
    ) -> None:
        load = functools.partial(load_model, batching=batching, profiles=profiles)
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="safelight-loader")
        self._models = {model.name: ServedModel(model, load, self._loader) for model in models}
        self._default = default_model or models[0].name

    def find(self, name: str) -> ServedModel:
        """Return the model of that name; the default one for an empty name.

        Raises:
            ModelNotFoundError: no such model is served.
        """
        model = self._models.get(name or self._default)
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
            is_default=model.settings.name == self._default,
            state=model.state,
            capabilities=loaded.capabilities if loaded else None,
        )

    def list(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first, the others by name."""
        names = sorted(self._models, key=lambda name: (name != self._default, name))
        return tuple(self.describe(name) for name in names)

    async def preload(self) -> None:
        """Load the models whose settings ask for it.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """
        for model in self._models.values():
            if model.settings.preload:
                await model.start_loading()

    def close(self) -> None:
        """Stop loading."""
        self._loader.shutdown(wait=False, cancel_futures=True)
