"""Observer: is told what the service does, and this one does nothing with it.

`telemetry/` has the other one, for who wants traces and metrics. Methods are called on the event
loop unless they say otherwise, and must return at once.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from safelight_service.core.events import Image
from safelight_service.core.timeline import SharedForward, Timeline

if TYPE_CHECKING:
    from safelight_service.generations.state import Generation


class Compilation(NamedTuple):
    """A model's forward that was compiled after its warm-up."""

    model: str
    reason: "CompilationReason"


CompilationReason = Literal["new_shape", "recompile"]
"""A shape that had not been prepared, such as another size; or one that had been, by mistake."""


class Observer:
    """Nobody watches."""

    note_forward: Callable[[SharedForward], None] | None = None
    """Called by the device thread, which has no time: what it is told is looked at elsewhere."""

    note_compilation: Callable[[Compilation], None] | None = None
    """Called by the device thread, like `note_forward`."""

    def generation_began(self, generation: "Generation") -> None:
        """Take note of a generation that the call being handled has started."""

    def generation_joined(self, generation: "Generation") -> None:
        """Take note that the call being handled watches a generation that is there already."""

    def generation_shares(self, generation: "Generation", timeline: Timeline) -> None:
        """Take note that a generation gets the images of an execution that another one began."""

    def generation_ended(self, generation: "Generation") -> Mapping[str, str]:
        """Take note of what has come of it; return what its line in the log is to hold as well."""
        return {}

    def execution_began(self, generation: "Generation", timeline: Timeline) -> None:
        """Take note that images are made for a generation."""

    def execution_ended(self, timeline: Timeline) -> None:
        """Take note that no more images are made."""

    def image_sent(self, image: Image, began_at: float) -> None:
        """Take note that the call being handled has sent an image."""

    def call_failed(self, reason: str) -> None:
        """Take note of the stable reason that the call being handled fails with."""

    def reader_stalled(self) -> None:
        """Take note that a reader did not read and was cut off."""

    def previews_dropped(self, count: int) -> None:
        """Take note of previews that were replaced before they were read."""

    def model_loaded(self, name: str, seconds: float) -> None:
        """Take note that a model has been loaded and warmed up."""


NULL_OBSERVER = Observer()
