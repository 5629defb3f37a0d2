"""ImageKey: equal for requests that get the same images."""

from collections.abc import Hashable
from dataclasses import dataclass, replace

from safelight_service.cache import ResultCache, cache_key
from safelight_service.core.backend import Prepared
from safelight_service.core.request import GenerationRequest

_ANY_SEED = -1
"""Stands for the open seed of requests that share each other's images."""


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Equal for requests that get the same images, and share them."""

    result: str
    """Key of the images in the result cache."""
    execution: Hashable
    """Key of the images while they are made; includes the previews that are wanted."""


def find_key(request: GenerationRequest, prepared: Prepared, cache: ResultCache) -> ImageKey | None:
    """Return the key of a request; None if its images are neither shared nor cached."""
    is_open = request.parameters.seed is None
    if not (request.uses_cache and cache.is_enabled):
        return None
    if is_open and not cache.replays_unseeded:
        return None
    resolved = prepared.accepted.request
    if is_open:
        resolved = replace(resolved, parameters=replace(resolved.parameters, seed=_ANY_SEED))
    key = cache_key(prepared.model_identity, resolved, request.cache_scope)
    return ImageKey(key, (key, resolved.preview))
