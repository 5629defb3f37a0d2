"""Backend: what runs generations, be it in this process or on other machines.

Generations, the gRPC server and telemetry know this interface alone. The local engine is one
backend; `app.py` chooses.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from safelight_service.core.events import Accepted, Completed, EventCallback
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.core.timeline import Timeline


@dataclass(frozen=True)
class Prepared:
    """A valid request with nothing left open; backends may add a handle of their own."""

    accepted: Accepted
    model_identity: str
    """Everything about the model that decides the bytes of its images, as text."""
    timeline: Timeline
    deadline_s: float | None = None
    """Seconds left when it was prepared; None without a deadline."""


@dataclass(frozen=True, slots=True)
class BackendStats:
    """How busy a backend is."""

    waiting_count: int
    """Generations in the queue."""
    running_count: int
    """Generations that have been started."""
    resident_bytes: Mapping[str, int] = field(default_factory=dict)
    """Weights of each model in memory, by the model's name."""
    memory_bytes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Memory of each GPU in use, by its state: allocated, reserved, total."""


class Backend(Protocol):
    """Runs generations; its methods belong to one event loop unless they say otherwise."""

    @property
    def default_model(self) -> str:
        """Name of the model of requests that name none."""

    @property
    def is_lost(self) -> bool:
        """Whether it has failed for good, so that only a new process helps."""

    async def start(self) -> None:
        """Load the models that must be there from the start.

        Raises:
            ModelFailedError: one of them cannot be loaded.
        """

    async def wait_until_lost(self) -> None:
        """Return when it has failed for good; all generations have ended then."""

    def drain(self) -> None:
        """Take no new work and end waiting generations; running ones go on."""

    async def close(self) -> None:
        """Cancel running generations, and release everything."""

    def stats(self) -> BackendStats:
        """Return how busy it is; from any thread."""

    def list_models(self) -> tuple[ModelInfo, ...]:
        """Describe all models, the default one first."""

    def get_model(self, name: str) -> ModelInfo:
        """Describe one model; an empty name is the default one.

        Raises:
            ModelNotFoundError: no such model is served.
        """

    def prepare(
        self, request: GenerationRequest, tell: EventCallback, timeline: Timeline
    ) -> AbstractAsyncContextManager[Prepared]:
        """Load the model, which stays loaded within the context, and resolve the request.

        Calls `tell` with the progress of loading, and records moments in the timeline.

        Raises:
            SafelightError: as `core/errors.py` lists them.
        """

    async def run(self, prepared: Any, tell: EventCallback) -> Completed:
        """Make the images, calling `tell` with each event; cancelling this cancels them.

        `prepared` is what this backend's `prepare` has made.

        Raises:
            SafelightError: as `core/errors.py` lists them.
        """
