"""Timeline: moments at which a generation passed from phase to phase, by time.monotonic.

The engine writes it, except where noted. The timings of `completed`, traces, metrics and logs are
derived from it, so they agree.
"""

import time
from dataclasses import dataclass, field
from typing import NamedTuple

from safelight_service.core.events import Timings, Usage


@dataclass(slots=True, eq=False)
class ImageTimeline:
    """Moments of one image, None until they are reached; each phase ends where the next begins.

    The device thread writes it up to the decoded image, and an encoder thread after that.
    """

    timeline: "Timeline"
    index: int
    started_at: float | None = None
    """Text encoding begins."""
    text_encoded_at: float | None = None
    """Denoising begins."""
    step_ends: list[float] = field(default_factory=list)
    denoised_at: float | None = None
    """Decoding begins; includes its wait for the device."""
    decoded_at: float | None = None
    encoding_at: float | None = None
    """Encoding begins, in a thread."""
    encoded_at: float | None = None

    @property
    def text_encode_s(self) -> float:
        """Seconds from the start to the first forward."""
        return _between(self.started_at, self.text_encoded_at)

    @property
    def denoise_s(self) -> float:
        """Seconds from the first forward to the end of the last step."""
        return _between(self.text_encoded_at, self.denoised_at)

    @property
    def decode_s(self) -> float:
        """Seconds from the last step to the decoded picture, the wait for the device included."""
        return _between(self.denoised_at, self.decoded_at)

    @property
    def image_encode_s(self) -> float:
        """Seconds in an encoder thread."""
        return _between(self.encoding_at, self.encoded_at)


@dataclass(slots=True, eq=False)
class Timeline:
    """Moments of one execution, which makes images for one or more generations."""

    began_at: float = field(default_factory=time.monotonic)
    model: str = ""
    """Name of the model, once it is known."""
    token: str = ""
    """Name of the token that the work counts for; empty without tokens."""
    pixel_count: int = 0
    """Pixels of each image, once they are known."""
    device_time_s: float = 0.0
    """Measured seconds of the device so far; a GPU's become known up to two steps late."""
    loading_at: float | None = None
    """Loading begins; None if the model was in memory."""
    loaded_at: float | None = None
    queued_at: float | None = None
    joined_at: float | None = None
    """A further watcher joined, so that the first call's deadline is no longer everybody's;
    written by the generations."""
    abandoned_at: float | None = None
    """The last watcher left; None while there are any. Written by the generations."""
    cancelled_at: float | None = None
    """Its callers have cancelled it, so nobody will continue it; written by the generations."""
    ended_at: float | None = None
    images: list[ImageTimeline] = field(default_factory=list)
    observed: object = None
    """Storage for an observer."""
    traceparent: str = ""
    """W3C trace context of the span above this execution; written by an observer."""
    has_spans_elsewhere: bool = False
    """Another process makes the spans of its phases."""

    @property
    def started_at(self) -> float | None:
        """Start of the first image, which ends the wait in the queue."""
        return self.images[0].started_at if self.images else None

    @property
    def usage(self) -> Usage:
        """Work done so far."""
        image_count = sum(image.encoded_at is not None for image in self.images)
        return Usage(
            self.device_time_s,
            image_count,
            image_count * self.pixel_count,
            sum(len(image.step_ends) for image in self.images),
        )

    def add_image(self) -> ImageTimeline:
        """Add an image."""
        image = ImageTimeline(self, len(self.images))
        self.images.append(image)
        return image

    def end(self) -> Timings:
        """Set `ended_at` to now, and return the seconds by phase."""
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
    """A forward of a denoiser, timed on the host; a GPU finishes it later."""

    began_at: float
    ended_at: float
    row_count: int
    members: tuple[tuple[ImageTimeline, int], ...]
    """Images that shared it, the leading one first, each with its completed steps."""


def _between(begin: float | None, end: float | None) -> float:
    return 0.0 if begin is None or end is None else end - begin
