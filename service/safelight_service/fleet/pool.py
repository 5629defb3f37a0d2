"""Pool: engine hosts that serve the same models, reached through some transport."""

from collections.abc import AsyncGenerator
from typing import Protocol

from safelight_service.core.backend import BackendStats
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.fleet.frames import Frame, RunOrder


class HostLostError(Exception):
    """An engine host died, froze or became unreachable; its work can run on another one."""


class NoHostError(Exception):
    """No engine host takes the call now: all are starting, full or excluded."""


class Pool(Protocol):
    """Chooses an engine host for each call. Call its methods on one event loop."""

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe the models as one of the hosts sees them.

        Raises:
            HostLostError, NoHostError: no host answers.
        """

    async def stats(self) -> tuple[BackendStats, ...]:
        """Return the load of each host that answers."""

    def prepare(
        self, request: GenerationRequest, left_s: float | None, excluded: frozenset[str]
    ) -> AsyncGenerator[Frame, None]:
        """Resolve a request on a host that is not excluded; close the stream to cancel it.

        Raises:
            HostLostError, NoHostError: call again, perhaps with the host excluded.
        """

    def run(self, order: RunOrder, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Run a generation on a host that is not excluded; close the stream to cancel it.

        Raises:
            HostLostError, NoHostError: call again, perhaps with the host excluded.
        """

    async def note(self, run_id: str, *, is_abandoned: bool, is_joined: bool) -> None:
        """Note at the host of a run whether it has no watchers, and whether it has further ones."""

    async def note_cancelled(self, run_id: str) -> None:
        """Note at the host of a run that nobody will continue it; its stream closes meanwhile."""

    async def close(self) -> None:
        """Release the transport."""
