"""Resident: something that takes memory of a device, and can be unloaded while idle."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Resident(Generic[T]):
    """A loaded model or adapter, and the number of its users. Use it on one event loop."""

    def __init__(self, released: asyncio.Event) -> None:
        """`released` is set whenever a user releases it."""
        self.used_at = 0.0
        self.size_bytes = 0
        """Bytes of the weights, once they have been loaded."""
        self._released = released
        self._user_count = 0
        self._loaded: T | None = None

    @property
    def loaded(self) -> T | None:
        """The loaded object, if it is in memory."""
        return self._loaded

    @property
    def is_idle(self) -> bool:
        """Whether it is in memory and not in use."""
        return self._loaded is not None and self._user_count == 0

    def forget(self) -> None:
        """Release the loaded object."""
        self._loaded = None

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep it in memory within the block, once it is loaded."""
        self._user_count += 1
        try:
            yield
        finally:
            self._user_count -= 1
            self.used_at = time.monotonic()
            self._released.set()
