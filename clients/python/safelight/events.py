"""The events of a generation, in the order in which they arrive.

Times are in seconds. An image is one event here: its bytes have been put
together from their chunks and their SHA-256 has been checked.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Self, TypeAlias

from safelight.parameters import Parameters
from safelight.v1 import text_to_image_pb2 as pb

if TYPE_CHECKING:
    import PIL.Image

_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP")


class CacheStatus(StrEnum):
    """What the service's cache of results had to do with a generation."""

    UNKNOWN = "unknown"
    """A status that this version of the client does not know."""
    HIT = "hit"
    """It had the images."""
    MISS = "miss"
    """It did not have the images, and has them now."""
    BYPASS = "bypass"
    """It was not asked: `use_cache` is False, or the seed is left open."""


class GenerationOutcome(StrEnum):
    """What a generation has ended as."""

    UNKNOWN = "unknown"
    """An outcome that this version of the client does not know."""
    COMPLETED = "completed"
    """All its images have been made."""
    FAILED = "failed"
    """It was refused, or something went wrong; watching it raises what."""
    CANCELLED = "cancelled"
    """It was cancelled, or nobody watched it any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoading:
    """The model that the generation needs is being loaded.

    Attributes:
        model: Name of the model.
        fraction: Share that is done, in [0, 1]; None on its first load.
        elapsed_s: Seconds since loading began.
    """

    model: str
    fraction: float | None
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The generation exists and its parameters are settled.

    Attributes:
        generation_id: Name of the generation, the caller's or the service's.
        model: Name of the model that runs it.
        model_revision: Revision of the model; empty where none is known.
        parameters: Every parameter as it will be used, defaults filled in;
            `seed` is that of the first image.
        image_count: Number of images that will be made.
        output_mime_type: Format of the images.
        output_quality: Quality of the images; None for a lossless format.
    """

    generation_id: str
    model: str
    model_revision: str
    parameters: Parameters
    image_count: int
    output_mime_type: str
    output_quality: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """Other generations run first.

    Attributes:
        position: Place in the queue; 1 is next.
        estimated_wait_s: Seconds until it starts; None while nobody can know.
    """

    position: int
    estimated_wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A denoising step has been made.

    Attributes:
        step: Steps made for this image, from 1 to `step_count`.
        step_count: Steps that this image takes.
        image_index: Which image, from 0.
        elapsed_s: Seconds since the generation started running.
        estimated_remaining_s: Seconds until all images are ready.
    """

    step: int
    step_count: int
    image_index: int
    elapsed_s: float
    estimated_remaining_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A small picture of an unfinished image.

    Attributes:
        image_index: Which image, from 0.
        step: The step after which it was taken, from 1.
        mime_type: Format of `data`.
        width: Width in pixels.
        height: Height in pixels.
        data: The picture's bytes.
    """

    image_index: int
    step: int
    mime_type: str
    width: int
    height: int
    data: bytes = field(repr=False)

    @property
    def pil(self) -> "PIL.Image.Image":
        """The picture as a Pillow image of its own, decoded on first use."""
        return _open_image(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image is ready.

    Attributes:
        image_index: Which image, from 0.
        mime_type: Format of `data`.
        width: Width in pixels.
        height: Height in pixels.
        seed: Seed that gives this image again in a request of its own.
        is_flagged: Whether the model's own safety checker has blackened it.
        sha256: SHA-256 of `data`, hexadecimal.
        data: The image's bytes, as the service made them.
    """

    image_index: int
    mime_type: str
    width: int
    height: int
    seed: int
    is_flagged: bool
    sha256: str
    data: bytes = field(repr=False)

    @classmethod
    def from_header(cls, header: pb.ImageHeader, data: bytes) -> Self:
        """Put an image together of what announced it and the bytes of its chunks."""
        return cls(
            image_index=header.image_index,
            mime_type=header.mime_type,
            width=header.width,
            height=header.height,
            seed=header.seed,
            is_flagged=header.is_flagged,
            sha256=header.sha256,
            data=data,
        )

    @property
    def pil(self) -> "PIL.Image.Image":
        """The image as a Pillow image of its own, decoded on first use.

        Its `info` holds the text that a PNG carries.
        """
        return _open_image(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds that a generation took, by phase, all images together."""

    model_load_s: float
    queue_s: float
    text_encode_s: float
    denoise_s: float
    decode_s: float
    image_encode_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The generation has ended well; the last event.

    Attributes:
        timings: Where the time went.
        step_count: Denoising steps run, all images together.
        batch_widths: How many images shared the forwards of these ones: forwards by width.
        cache: Whether the images came from the service's cache.
    """

    timings: Timings
    step_count: int
    batch_widths: Mapping[int, int]
    cache: CacheStatus


Event: TypeAlias = ModelLoading | Accepted | Queued | Progress | Preview | Image | Completed
"""Any event of a generation."""


def _open_image(data: bytes) -> "PIL.Image.Image":
    # Imported here because a caller that only stores the bytes has no use for it.
    import PIL.Image

    return PIL.Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS)
