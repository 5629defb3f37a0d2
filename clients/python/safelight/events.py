"""The events of a generation, in the order of their arrival.

Times are in seconds. An image is one event: `EventAssembler` joins its chunks and checks its
size and SHA-256.
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
    """How a generation used the service's result cache."""

    UNKNOWN = "unknown"
    """A status of a newer service."""
    HIT = "hit"
    """The images came from the cache."""
    MISS = "miss"
    """The images are new, and now in the cache."""
    BYPASS = "bypass"
    """The cache was not used: `use_cache` is False, or the request has no seed."""


class GenerationOutcome(StrEnum):
    """The end of a generation."""

    UNKNOWN = "unknown"
    """An outcome of a newer service."""
    COMPLETED = "completed"
    """All images are finished."""
    FAILED = "failed"
    """It was refused or went wrong; watching it raises the error."""
    CANCELLED = "cancelled"
    """It was cancelled, or lost its last watcher."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoading:
    """The model of the generation is being loaded, or no engine has the generation yet.

    Attributes:
        model: Name of the model.
        fraction: Completed share, in [0, 1]; None on the first load of the model.
        elapsed_s: Seconds since loading began, or the generation, where no engine has it.
    """

    model: str
    fraction: float | None
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The service has accepted the generation, with these parameters.

    Attributes:
        generation_id: Name of the generation, the caller's or the service's.
        model: Name of the model.
        model_revision: Revision of the model; empty if unknown.
        parameters: Every parameter as used, with defaults; `seed` is that of the
            first image.
        image_count: Number of images.
        output_mime_type: MIME type of the images.
        output_quality: Quality of the images; None for a lossless format.
        adapters: Scales of the adapters by name, in the requested order.
    """

    generation_id: str
    model: str
    model_revision: str
    parameters: Parameters
    image_count: int
    output_mime_type: str
    output_quality: int | None
    adapters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The generation waits for others.

    Attributes:
        position: Place in the queue; 1 is next.
        estimated_wait_s: Seconds until it starts; None if unknown.
    """

    position: int
    estimated_wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The engine that made the images was lost, and another one continues with the same seed.

    Steps and previews of unfinished images may go back after this event.

    Attributes:
        restart_count: Number of restarts of the generation so far; 1 is the first.
        recovered_step_count: Number of steps, summed over the images, that were recovered instead
            of made again.
    """

    restart_count: int
    recovered_step_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A denoising step is done.

    Attributes:
        step: Number of done steps of this image, from 1 to `step_count`.
        step_count: Number of steps of this image.
        image_index: Index of the image, from 0.
        elapsed_s: Seconds since the generation started running.
        estimated_remaining_s: Seconds until all images are finished.
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
        image_index: Index of the image, from 0.
        step: Number of done steps, from 1.
        mime_type: MIME type of `data`.
        width: Width in pixels.
        height: Height in pixels.
        data: Encoded picture.
    """

    image_index: int
    step: int
    mime_type: str
    width: int
    height: int
    data: bytes = field(repr=False)

    @property
    def pil(self) -> "PIL.Image.Image":
        """The picture as a new Pillow image, decoded on first use."""
        return _open_image(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image is finished.

    Attributes:
        image_index: Index of the image, from 0.
        mime_type: MIME type of `data`.
        width: Width in pixels.
        height: Height in pixels.
        seed: Seed that repeats this image in a request for one image.
        is_flagged: Whether the model's safety checker has replaced it with a black image.
        sha256: SHA-256 of `data`, 64 lower-case hexadecimal digits.
        data: Encoded image, unchanged from the service.
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
        """Create an image from its announcement and the bytes of all its chunks."""
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
        """The image as a new Pillow image, decoded on first use.

        Its `info` holds the text chunks of a PNG.
        """
        return _open_image(self.data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Seconds that a generation took by phase, summed over its images."""

    model_load_s: float
    queue_s: float
    text_encode_s: float
    denoise_s: float
    decode_s: float
    image_encode_s: float
    total_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Work of the service that counts for a generation, and for the token that started it.

    All zero if the images came from the cache, or from an equal generation at the same time.

    Attributes:
        device_time_s: Measured seconds of the device, all images together; images that share a
            forward share its time.
        image_count: Number of images made.
        pixel_count: Number of pixels of these images together.
        step_count: Number of denoising steps made, all images together.
    """

    device_time_s: float
    image_count: int
    pixel_count: int
    step_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The generation has completed; the last event.

    Attributes:
        timings: Seconds by phase.
        step_count: Number of denoising steps, summed over the images.
        batch_widths: Number of forwards by batch width: how many images shared each.
        cache: How the generation used the service's result cache.
        usage: Work that counts for the generation; None from an older service.
        reused_forward_count: Number of forwards that step reuse saved.
        restart_count: Number of engines that were lost while they made the images.
    """

    timings: Timings
    step_count: int
    batch_widths: Mapping[int, int]
    cache: CacheStatus
    usage: Usage | None = None
    reused_forward_count: int = 0
    restart_count: int = 0


Event: TypeAlias = (
    ModelLoading | Accepted | Queued | Restarted | Progress | Preview | Image | Completed
)
"""Any event of a generation."""


def _open_image(data: bytes) -> "PIL.Image.Image":
    # Imported on use: callers that only store the bytes do not need it.
    import PIL.Image

    return PIL.Image.open(io.BytesIO(data), formats=_PILLOW_FORMATS)
