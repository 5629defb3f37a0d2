"""Observer: interface with no-op defaults, implemented by `telemetry/` for traces and metrics.

The service calls its methods on the event loop, except where noted; they must return at once.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from safelight_service.core.events import Image
from safelight_service.core.timeline import SharedForward, Timeline

if TYPE_CHECKING:
    from safelight_service.generations.state import Generation


class Compilation(NamedTuple):
    """A forward that was compiled after the warm-up of its model."""

    model: str
    reason: "CompilationReason"


CompilationReason = Literal["new_shape", "recompile"]
"""`new_shape`: not prepared, such as another size. `recompile`: prepared, but compiled again."""


class Observer:
    """Receives notifications of the service; these methods ignore them."""

    note_forward: Callable[[SharedForward], None] | None = None
    """Called by the device thread; must only hand the forward to another thread."""

    note_compilation: Callable[[Compilation], None] | None = None
    """Called by the device thread, under the same rule."""

    def generation_began(self, generation: "Generation") -> None:
        """The current call has started a generation."""

    def generation_joined(self, generation: "Generation") -> None:
        """The current call has joined a generation that exists already."""

    def generation_shares(self, generation: "Generation", timeline: Timeline) -> None:
        """A generation gets its images from the execution of another one."""

    def generation_ended(self, generation: "Generation") -> Mapping[str, str]:
        """A generation has ended; return further fields for its log line."""
        return {}

    def execution_began(self, generation: "Generation", timeline: Timeline) -> None:
        """An execution has begun to make images for a generation."""

    def execution_ended(self, timeline: Timeline) -> None:
        """An execution has ended."""

    def run_began(self, timeline: Timeline) -> None:
        """This process has begun to make the images of an execution of another process."""

    def run_ended(self, timeline: Timeline) -> None:
        """The run has ended."""

    def image_sent(self, image: Image, began_at: float) -> None:
        """The current call has sent an image; `began_at` is a moment of time.monotonic."""

    def call_failed(self, reason: str) -> None:
        """The current call fails with this stable reason."""

    def reader_stalled(self) -> None:
        """A call was cut off because its reader stalled."""

    def previews_dropped(self, count: int) -> None:
        """Newer previews have replaced this many unread ones."""

    def model_loaded(self, name: str, seconds: float) -> None:
        """A model has been loaded and warmed up, in `seconds`."""


NULL_OBSERVER = Observer()
