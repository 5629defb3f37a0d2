"""Events of a generation, in the order in which callers receive them."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from safelight_service.core.request import ResolvedRequest


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is valid and the generation exists."""

    generation_id: str
    model: str
    model_revision: str
    request: ResolvedRequest


@dataclass(frozen=True, slots=True)
class Queued:
    """The generation waits in the queue; position 1 is next."""

    position: int
    estimated_wait_s: float | None


@dataclass(frozen=True, slots=True)
class ModelLoading:
    """The model is being loaded; `fraction` in [0, 1] is None on the first load."""

    model: str
    fraction: float | None
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Restarted:
    """The engine was lost, and another one continues; progress may go back."""

    restart_count: int
    """Restarts so far; 1 is the first."""
    recovered_step_count: int = 0
    """Steps of all images together that come from a log instead of the device."""


@dataclass(frozen=True, slots=True)
class Progress:
    """An image has completed `step` of `step_count` denoising steps."""

    step: int
    step_count: int
    image_index: int
    elapsed_s: float
    estimated_remaining_s: float


@dataclass(frozen=True, slots=True)
class Preview:
    """A compressed preview of an unfinished image; sizes in pixels."""

    image_index: int
    step: int
    mime_type: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image, compressed; `sha256` is that of `data`, in lower-case hexadecimal."""

    index: int
    mime_type: str
    width: int
    height: int
    seed: int
    is_flagged: bool
    sha256: str
    data: bytes
    is_cacheable: bool = True
    """Whether later requests may get it; not if it lacks the signature that others have."""


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds by phase.

    From `text_encode_s` to `image_encode_s`, sums over the images, which are made concurrently.
    """

    model_load_s: float
    queue_s: float
    text_encode_s: float
    denoise_s: float
    decode_s: float
    image_encode_s: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Work that counts for a generation's token; none for images that it did not make itself."""

    device_time_s: float = 0.0
    """Measured seconds of the device; of a forward that several images shared, the part by rows."""
    image_count: int = 0
    pixel_count: int = 0
    """Pixels of these images together."""
    step_count: int = 0
    """Denoising steps, those of unfinished images included."""


class CacheUse(enum.Enum):
    """How a generation used the result cache."""

    HIT = "hit"
    """The images came from the cache."""
    MISS = "miss"
    """The images were made, and put into the cache."""
    BYPASS = "bypass"
    """The cache was not used: the caller declined, or left the seed open."""


@dataclass(frozen=True, slots=True)
class Completed:
    """All images have been made."""

    timings: Timings
    step_count: int
    widths: Mapping[int, int]
    """Number of forwards by their width, the number of images that shared one."""
    cache: CacheUse = CacheUse.BYPASS
    usage: Usage = Usage()
    reused_forward_count: int = 0
    """Forwards saved by step reuse."""
    restart_count: int = 0
    """Engines that were lost while they made the images."""


Event = Accepted | Queued | ModelLoading | Restarted | Progress | Preview | Image | Completed

EventCallback = Callable[[Event], None]
"""Called on the event loop with each event."""
