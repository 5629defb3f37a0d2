"""ImageSource: where the images of an execution come from.

They are in the cache, or another execution makes the same ones, here or at another service, or the
backend has to make them.
"""

import asyncio
from collections.abc import Hashable
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, replace

from safelight_service.cache import Result, ResultCache, cache_key
from safelight_service.core.backend import Backend, ModelChangedError, Prepared
from safelight_service.core.errors import NoEngineError
from safelight_service.core.events import Accepted, CacheUse, Completed
from safelight_service.core.observer import Observer
from safelight_service.core.request import GenerationRequest
from safelight_service.core.tenant import Tenant
from safelight_service.generations.execution import Execution
from safelight_service.generations.leases import Leases

_MAX_PREPARATIONS = 3
"""Preparations of a request whose model changes before it runs."""

_MAX_FOLLOWS = 3
"""Services to wait for, one after another, if no result reaches the cache."""

_ANY_SEED = -1
"""Stands for the open seed of requests that share each other's images."""


class ImageSource:
    """Gets images for executions, and lets those of equal requests join each other."""

    def __init__(
        self,
        backend: Backend,
        cache: ResultCache,
        observer: Observer,
        leases: Leases | None = None,
    ) -> None:
        """`leases` are those of the services that share the cache."""
        self._backend = backend
        self._cache = cache
        self._leases = leases
        self._observer = observer
        self._executions: dict[Hashable, Execution] = {}
        """Executions that other generations may join, by the keys of their images."""
        self._storing: set[asyncio.Task[None]] = set()

    async def get(self, execution: Execution) -> Completed | None:
        """Publish the images of an execution; return None if another one has taken it over.

        Raises:
            SafelightError: any that `core/errors.py` lists.
        """
        for _ in range(_MAX_PREPARATIONS):
            try:
                return await self._get(execution)
            except ModelChangedError:
                self.close_to_others(execution)
                if execution.is_accepted:
                    break
        raise NoEngineError

    async def _get(self, execution: Execution) -> Completed | None:
        """Publish the images, for the model as it is now.

        Raises:
            SafelightError: any that `core/errors.py` lists.
            ModelChangedError: the model has changed meanwhile.
        """
        with ExitStack() as lease:
            async with self._backend.prepare(
                execution.request, execution.publish, execution.timeline
            ) as prepared:
                key = _find_key(execution.request, prepared, self._cache)
                if key is None:
                    return await self._backend.run(prepared, execution.publish)
                other = self._executions.get(key.execution)
                if other is not None:
                    for generation in execution.generations:
                        self._observer.generation_shares(generation, other.timeline)
                    other.take_over(execution)
                    return None
                execution.key = key.execution
                self._executions[execution.key] = execution
                result = await self._find(execution, prepared.accepted, key, lease)
                if result is not None:
                    return _replay(execution, prepared.accepted, result)
                completed = await self._backend.run(prepared, execution.publish)
            if not all(image.is_cacheable for image in execution.images):
                return completed
            result = Result(execution.images, completed.step_count)
            self._store(key.result, result, execution.cache_owner, lease.pop_all())
        return replace(completed, cache=CacheUse.MISS)

    async def _find(
        self, execution: Execution, accepted: Accepted, key: "_ImageKey", lease: ExitStack
    ) -> Result | None:
        """Return the result of the cache; None if this service has to make the images.

        Waits while another service makes them. `lease` gets the release of this service's lease.
        """
        for _ in range(_MAX_FOLLOWS):
            result = await self._cache.get(key.result, execution.cache_owner)
            if result is not None or self._leases is None or not key.lease:
                return result
            release = await self._leases.claim(key.lease, lambda: execution.present)
            if release is not None:
                lease.callback(release)
                return None
            execution.publish(accepted)
            async with aclosing(self._leases.follow(key.lease)) as events:
                async for event in events:
                    execution.publish(event)
        return await self._cache.get(key.result, execution.cache_owner)

    def close_to_others(self, execution: Execution) -> None:
        """Let no further generations join an execution."""
        if execution.key is not None:
            self._executions.pop(execution.key, None)
            execution.key = None

    async def close(self) -> None:
        """Close the cache, after all results are stored."""
        await asyncio.gather(*self._storing)
        await self._cache.close()

    def _store(self, key: str, result: Result, owner: Tenant, lease: ExitStack) -> None:
        """Put a result into the cache, in a separate task; then close `lease`."""

        async def store() -> None:
            with lease:
                await self._cache.put(key, result, owner)

        storing = asyncio.create_task(store())
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)


def _replay(execution: Execution, accepted: Accepted, result: Result) -> Completed:
    """Publish the events of a cached result."""
    parameters = replace(accepted.request.parameters, seed=result.images[0].seed)
    execution.publish(replace(accepted, request=replace(accepted.request, parameters=parameters)))
    for image in result.images:
        execution.publish(image)
    return Completed(execution.timeline.end(), result.step_count, {}, CacheUse.HIT)


@dataclass(frozen=True, slots=True)
class _ImageKey:
    """Equal for requests that get the same images, and share them."""

    result: str
    """Key of the images in the result cache."""
    execution: Hashable
    """Key of the images while they are made; includes the previews that are wanted."""
    lease: str
    """The same for several services; empty if the seed is open, which only the holder knows."""


def _find_key(
    request: GenerationRequest, prepared: Prepared, cache: ResultCache
) -> _ImageKey | None:
    """Return the key of a request; None if its images are neither shared nor cached."""
    is_open = request.parameters.seed is None
    if not (request.uses_cache and cache.is_enabled):
        return None
    if is_open and not cache.replays_unseeded:
        return None
    resolved = prepared.accepted.request
    if is_open:
        resolved = replace(resolved, parameters=replace(resolved.parameters, seed=_ANY_SEED))
    scope = request.cache_scope
    key = cache_key(prepared.model_identity, resolved, scope, prepared.marking)
    return _ImageKey(key, (key, resolved.preview), "" if is_open else f"{key} {resolved.preview}")
