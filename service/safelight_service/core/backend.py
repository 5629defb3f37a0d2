"""Backend: the interface to an engine, in this process or on another machine.

Generations, the gRPC server and telemetry depend on this interface only. `app.py` chooses the
backend.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from safelight_service.core.events import Accepted, Completed, EventCallback
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import Timeline


class ModelChangedError(Exception):
    """The model has another revision than the request was prepared for; prepare it again."""


@dataclass(frozen=True)
class Prepared:
    """A valid request with every default filled in; backends may subclass it with a handle."""

    accepted: Accepted
    model_identity: str
    """Text that is equal for models whose images have the same bytes."""
    timeline: Timeline
    deadline_s: float | None = None
    """Seconds from preparation to the deadline; None without one."""
    marking: str = ""
    """Text that is equal where equal images get equal metadata and signatures."""


@dataclass(frozen=True, slots=True)
class BackendStats:
    """Load and memory of a backend."""

    waiting_count: int
    """Generations in the queue."""
    running_count: int
    """Generations on a device."""
    resident_bytes: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the weights of each model in memory, by the model's name."""
    memory_bytes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Bytes of each GPU in use, by state: allocated, reserved and total."""
    device_time_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Measured device seconds since the start, by model and token; they only grow."""
    busy_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds since the start in which each device was at work, by device; they only grow."""


class Backend(Protocol):
    """Runs generations. Call its methods on one event loop, except where noted."""

    @property
    def default_model(self) -> str:
        """Name of the model for requests that name none."""

    @property
    def is_lost(self) -> bool:
        """Whether the backend has failed and only a new process helps."""

    async def start(self) -> None:
        """Load the models that are configured to be preloaded.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """

    async def wait_until_lost(self) -> None:
        """Wait until the backend is lost; all its generations have ended then."""

    def drain(self) -> None:
        """Refuse new work and end waiting generations; running ones continue."""

    async def close(self) -> None:
        """Cancel running generations and release all resources."""

    def stats(self) -> BackendStats:
        """Return the present load; safe to call from any thread."""

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first."""

    def get_model(self, name: str) -> ModelInfo:
        """Describe a model; an empty name stands for the default one.

        Raises:
            ModelNotFoundError: no such model is served.
        """

    def prepare(
        self, request: GenerationRequest, on_event: EventCallback, timeline: Timeline
    ) -> AbstractAsyncContextManager[Prepared]:
        """Load the model and resolve the request; the model stays loaded within the context.

        Calls `on_event` with the progress of loading, and records moments in the timeline.

        Raises:
            SafelightError: any that `core/errors.py` lists.
        """

    async def run(self, prepared: Any, on_event: EventCallback) -> Completed:
        """Make the images and call `on_event` with each event; cancel the task to cancel them.

        `prepared` must come from `prepare` of the same backend.

        Raises:
            SafelightError: any that `core/errors.py` lists.
            ModelChangedError: nothing was published, not even `prepared.accepted`.
        """
