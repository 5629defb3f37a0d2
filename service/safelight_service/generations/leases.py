"""Leases: let one of several services make the images of equal requests for all of them."""

from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol

from safelight_service.core.events import Event


class Leases(Protocol):
    """Leases that several services share."""

    async def claim(
        self, key: str, present: Callable[[], Iterable[Event]]
    ) -> Callable[[], None] | None:
        """Take the lease of a key, and return its release; None if another service holds it.

        `present` returns the events to show to the services that follow. Release the lease once
        the images are in the cache, or will not be made.
        """

    def follow(self, key: str) -> AsyncGenerator[Event, None]:
        """Yield the events that the holder of a key shows, until it holds the lease no more."""
