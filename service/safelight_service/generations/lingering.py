"""Lingering: the generations that run without watchers, bounded for each tenant."""

from safelight_service.generations.state import Generation


class Lingering:
    """Lingering generations by tenant, the one that was left first at the front."""

    def __init__(self, max_count: int) -> None:
        self._max_count = max_count
        self._by_tenant: dict[str, dict[Generation, None]] = {}

    def add(self, generation: Generation) -> Generation | None:
        """Add a generation; return the one that has to end for it, perhaps itself."""
        own = self._by_tenant.setdefault(generation.request.tenant.name, {})
        own[generation] = None
        return next(iter(own)) if len(own) > self._max_count else None

    def discard(self, generation: Generation) -> None:
        """Remove a generation that has ended or is watched again, if it is there."""
        name = generation.request.tenant.name
        own = self._by_tenant.get(name, {})
        own.pop(generation, None)
        if not own:
            self._by_tenant.pop(name, None)
