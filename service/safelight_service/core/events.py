"""Events: what happens to a generation, in the order in which a caller learns of it."""

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
    """Other generations run first; position 1 is next."""

    position: int
    estimated_wait_s: float | None


@dataclass(frozen=True, slots=True)
class ModelLoading:
    """The model is being loaded; `fraction` in [0, 1] is None on a first load."""

    model: str
    fraction: float | None
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Step `step` of `step_count` of one image has been made."""

    step: int
    step_count: int
    image_index: int
    elapsed_s: float
    estimated_remaining_s: float


@dataclass(frozen=True, slots=True)
class Preview:
    """A small picture of an unfinished image."""

    image_index: int
    step: int
    mime_type: str
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image, compressed; `sha256` of its bytes in lower-case hexadecimal."""

    index: int
    mime_type: str
    width: int
    height: int
    seed: int
    is_flagged: bool
    sha256: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds by phase.

    Those from `text_encode_s` on are sums over the images, which are made side by side.
    """

    model_load_s: float
    queue_s: float
    text_encode_s: float
    denoise_s: float
    decode_s: float
    image_encode_s: float
    total_s: float


class CacheUse(enum.Enum):
    """What the cache of results had to do with a generation."""

    HIT = "hit"
    """It had the images."""
    MISS = "miss"
    """It has them now."""
    BYPASS = "bypass"
    """It was not asked: the caller did not want that, or left the seed open."""


@dataclass(frozen=True, slots=True)
class Completed:
    """All images have been made."""

    timings: Timings
    step_count: int
    widths: Mapping[int, int]
    """How many images shared the forwards of this one: forwards by width."""
    cache: CacheUse = CacheUse.BYPASS


Event = Accepted | Queued | ModelLoading | Progress | Preview | Image | Completed

EventCallback = Callable[[Event], None]
"""Is called on the event loop with each event."""
