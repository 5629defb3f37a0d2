"""CompileWatch: distinguishes compilations, which may take minutes, from a hang."""

import contextlib
import time
from typing import Any


class CompileWatch:
    """Watches torch's compilations in this process."""

    def __init__(self) -> None:
        from torch._dynamo.callback import callback_handler  # takes a second to import

        self._handler = callback_handler
        self._is_compiling = False
        self._ended_at = 0.0
        self._handler.register_start_callback(self._begin)
        self._handler.register_end_callback(self._end)

    def seconds_since(self, began_at: float) -> float:
        """Return the seconds since a moment of time.monotonic, or since the last compilation.

        0 while torch compiles.
        """
        return 0.0 if self._is_compiling else time.monotonic() - max(began_at, self._ended_at)

    def close(self) -> None:
        """Stop watching."""
        with contextlib.suppress(ValueError):  # torch._dynamo.reset() forgets all callbacks
            self._handler.remove_start_callback(self._begin)
            self._handler.remove_end_callback(self._end)

    def _begin(self, _: Any) -> None:
        self._is_compiling = True

    def _end(self, _: Any) -> None:
        self._ended_at = time.monotonic()
        self._is_compiling = False
