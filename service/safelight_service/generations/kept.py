"""Kept: the generations that have ended and can be watched again, bounded in bytes.

Each tenant has its share of the bytes, so none can push out the generations of another one.
"""

from collections import Counter

from safelight_service.core.shares import Shares
from safelight_service.generations.state import Generation

_OVERHEAD_BYTES = 8192
"""Most memory of a kept generation beside its images, previews and prompts."""
_CHARACTER_BYTES = 4
"""Most memory of a character of a prompt."""


class Kept:
    """Ended generations by tenant, the longest ended first."""

    def __init__(self, max_bytes: int) -> None:
        self._shares = Shares(max_bytes)
        self._by_tenant: dict[str, dict[Generation, None]] = {}
        self._uses: Counter[tuple[str, int]] = Counter()
        """Generations of a tenant that hold the same object of bytes, by the object's identity."""

    @property
    def size_bytes(self) -> int:
        """Approximate memory. Bytes that a tenant has twice, as from a cache, count once."""
        return self._shares.total

    def add(self, generation: Generation) -> None:
        """Add a generation that has ended."""
        tenant = generation.request.tenant
        self._by_tenant.setdefault(tenant.name, {})[generation] = None
        size_bytes = _count_own_bytes(generation)
        for data in generation.contents:
            place = tenant.name, id(data)
            size_bytes += 0 if place in self._uses else len(data)
            self._uses[place] += 1
        self._shares.add(tenant, size_bytes)

    def find_excessive(self) -> Generation | None:
        """Return the next generation to forget; None if all of them fit."""
        if not self._shares.is_exceeded:
            return None
        return next(iter(self._by_tenant[self._shares.find_excessive()]))

    def discard(self, generation: Generation) -> None:
        """Remove a generation, if it is there."""
        name = generation.request.tenant.name
        own = self._by_tenant.get(name, {})
        if generation not in own:
            return
        del own[generation]
        if not own:
            del self._by_tenant[name]
        size_bytes = _count_own_bytes(generation)
        for data in generation.contents:
            place = name, id(data)
            self._uses[place] -= 1
            if not self._uses[place]:
                del self._uses[place]
                size_bytes += len(data)
        self._shares.take(name, size_bytes)


def _count_own_bytes(generation: Generation) -> int:
    """Return the bytes that a generation shares with no other."""
    request = generation.request
    prompts = request.inputs, request.parameters.negative_prompt or ""
    return _OVERHEAD_BYTES + _CHARACTER_BYTES * sum(map(len, prompts))
