"""Timeline: when a generation passed from phase to phase, by the clock of time.monotonic.

The engine writes it; what callers are told in `completed`, traces, metrics and logs are all read
off it, so they agree.
"""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from safelight_service.core.events import Timings


@dataclass(slots=True, eq=False)
class ImageTimeline:
    """The moments of one image, None while they lie ahead; each phase ends where the next begins.

    Written by the device thread and, once it has decoded the image, by the one that encodes it.
    """

    timeline: "Timeline"
    index: int
    started_at: float | None = None
    """Text encoding begins."""
    text_encoded_at: float | None = None
    """Denoising begins."""
    step_ends: list[float] = field(default_factory=list)
    denoised_at: float | None = None
    """Decoding begins; its wait for the device is part of it."""
    decoded_at: float | None = None
    encoding_at: float | None = None
    """A thread begins to encode the image."""
    encoded_at: float | None = None

    @property
    def text_encode_s(self) -> float:
        """Seconds from the start to the first forward."""
        return _between(self.started_at, self.text_encoded_at)

    @property
    def denoise_s(self) -> float:
        """Seconds from the first forward to the wish to be decoded."""
        return _between(self.text_encoded_at, self.denoised_at)

    @property
    def decode_s(self) -> float:
        """Seconds from the wish to be decoded to the picture."""
        return _between(self.denoised_at, self.decoded_at)

    @property
    def image_encode_s(self) -> float:
        """Seconds in the encoder's thread."""
        return _between(self.encoding_at, self.encoded_at)


@dataclass(slots=True, eq=False)
class Timeline:
    """The moments of one execution: of what makes images, for however many generations."""

    began_at: float = field(default_factory=time.monotonic)
    model: str = ""
    """Name of the model, once it is settled."""
    pixel_count: int = 0
    """Of each image, once it is settled."""
    loading_at: float | None = None
    """Loading begins; None where there was nothing to wait for."""
    loaded_at: float | None = None
    queued_at: float | None = None
    ended_at: float | None = None
    images: list[ImageTimeline] = field(default_factory=list)
    observed: object = None
    """Whatever an observer keeps beside it."""

    @property
    def started_at(self) -> float | None:
        """When the first image was started, and the wait in the queue was over."""
        return self.images[0].started_at if self.images else None

    def add_image(self) -> ImageTimeline:
        """Add an image that is to be made."""
        image = ImageTimeline(self, len(self.images))
        self.images.append(image)
        return image

    def end(self) -> Timings:
        """Let it end now, and tell the seconds by phase."""
        self.ended_at = time.monotonic()
        return Timings(
            model_load_s=_between(self.loading_at, self.loaded_at),
            queue_s=_between(self.queued_at, self.started_at),
            text_encode_s=sum(image.text_encode_s for image in self.images),
            denoise_s=sum(image.denoise_s for image in self.images),
            decode_s=sum(image.decode_s for image in self.images),
            image_encode_s=sum(image.image_encode_s for image in self.images),
            total_s=self.ended_at - self.began_at,
        )


class SharedForward(NamedTuple):
    """A forward of a denoiser, as the host saw it; on a GPU it ends later than it seems."""

    began_at: float
    ended_at: float
    row_count: int
    members: tuple[tuple[ImageTimeline, int], ...]
    """The images that shared it, the one that led first, each with the steps it had made."""


def _between(begin: float | None, end: float | None) -> float:
    return 0.0 if begin is None or end is None else end - begin
