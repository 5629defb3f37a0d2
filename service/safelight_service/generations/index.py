"""GenerationIndex: the generations that run or have ended lately, by owner and id."""

from collections.abc import Iterator

from safelight_service.generations.state import Generation


class GenerationIndex:
    """Finds generations, and bounds the memory of those that have ended."""

    def __init__(self, max_kept_bytes: int) -> None:
        self._max_kept_bytes = max_kept_bytes
        self._by_id: dict[tuple[str, str], Generation] = {}
        self._kept: dict[Generation, int] = {}
        """Bytes of the ended generations, the longest ended first."""

    def __iter__(self) -> Iterator[Generation]:
        """Iterate over all generations."""
        return iter(self._by_id.values())

    def get(self, owner: str, generation_id: str) -> Generation | None:
        """Return the generation of that owner and id, if it is known."""
        return self._by_id.get((owner, generation_id))

    def add(self, generation: Generation) -> None:
        """Add a generation that starts; forget an earlier one of the same owner and id."""
        earlier = self.get(generation.owner, generation.id)
        if earlier is not None:
            self.forget(earlier)
        self._by_id[generation.owner, generation.id] = generation

    def keep(self, generation: Generation) -> None:
        """Keep a generation that has ended; forget the longest ended ones beyond the bound."""
        self._kept[generation] = generation.size_bytes
        while sum(self._kept.values()) > self._max_kept_bytes:
            self.forget(next(iter(self._kept)))

    def forget(self, generation: Generation) -> None:
        """Remove a generation, and cancel its timer."""
        generation.cancel_timer()
        self._kept.pop(generation, None)
        key = generation.owner, generation.id
        if self._by_id.get(key) is generation:
            del self._by_id[key]
