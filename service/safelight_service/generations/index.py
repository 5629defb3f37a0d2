"""GenerationIndex: the generations that run or have ended lately, by owner and id."""

from collections.abc import Iterator, Set

from safelight_service.generations.kept import Kept
from safelight_service.generations.state import Generation


class GenerationIndex:
    """Finds generations, and bounds the memory of those that have ended."""

    def __init__(self, max_kept_bytes: int) -> None:
        self._by_owner: dict[str, dict[str, Generation]] = {}
        self._kept = Kept(max_kept_bytes)

    def __iter__(self) -> Iterator[Generation]:
        """Iterate over all generations."""
        for own in self._by_owner.values():
            yield from own.values()

    @property
    def owners(self) -> Set[str]:
        """Names of the owners that have generations."""
        return self._by_owner.keys()

    def list_of(self, owner: str) -> list[Generation]:
        """Return all generations of an owner."""
        return list(self._by_owner.get(owner, {}).values())

    def get(self, owner: str, generation_id: str) -> Generation | None:
        """Return the generation of that owner and id, if it is known."""
        return self._by_owner.get(owner, {}).get(generation_id)

    def add(self, generation: Generation) -> None:
        """Add a generation that starts; forget an earlier one of the same owner and id."""
        earlier = self.get(generation.owner, generation.id)
        if earlier is not None:
            self.forget(earlier)
        self._by_owner.setdefault(generation.owner, {})[generation.id] = generation

    def keep(self, generation: Generation) -> None:
        """Keep a generation that has ended; forget others, or itself, beyond the bound.

        The tenant that exceeds its share most loses the one of its own that ended first.
        """
        self._kept.add(generation)
        while (excessive := self._kept.find_excessive()) is not None:
            self.forget(excessive)

    def forget(self, generation: Generation) -> None:
        """Remove a generation, and cancel its timer."""
        generation.cancel_timer()
        self._kept.discard(generation)
        own = self._by_owner.get(generation.owner, {})
        if own.get(generation.id) is generation:
            del own[generation.id]
            if not own:
                del self._by_owner[generation.owner]
