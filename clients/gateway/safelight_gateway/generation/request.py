"""A request for images, in no dialect, and its result."""

import time
from dataclasses import dataclass, field

from safelight import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """What travels beside a request.

    Attributes:
        credential: Token of the service; None where the caller sent none.
        metadata: More metadata for the service: the trace's and the request's ids.
        deadline_s: Monotonic time at which the caller has no more use for an answer.
    """

    credential: str | None = field(default=None, repr=False)
    metadata: tuple[tuple[str, str], ...] = ()
    deadline_s: float | None = None

    @property
    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """All metadata of a gRPC call, the credential included."""
        authorization = (("authorization", f"Bearer {self.credential}"),) if self.credential else ()
        return (*authorization, *self.metadata)

    def timeout_s(self, longest_s: float) -> float:
        """Return the seconds that are left, at most `longest_s`."""
        if self.deadline_s is None:
            return longest_s
        return min(longest_s, max(0.0, self.deadline_s - time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """What is asked for, whatever the dialect; None is left to the model.

    Attributes:
        prompt: What to draw.
        model: Id of the model as the caller wrote it; empty for the default one. Of several
            spellings the first that is known counts.
        count: Number of images.
        output_mime_type: image/png, image/jpeg or image/webp.
        output_quality: Of JPEG and WebP, from 1 to 100.
        use_cache: Whether an equal earlier request may answer it.
        wait_for_model: Whether to wait for a model that is not in memory.
        unknown_parameters: Names that the caller sent and that mean nothing here.
        context: Who asks, until when, and as part of which trace.
    """

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    seed: int | None = None
    count: int = 1
    model: tuple[str, ...] = ()
    output_mime_type: str = "image/png"
    output_quality: int | None = None
    use_cache: bool = True
    wait_for_model: bool = True
    unknown_parameters: tuple[str, ...] = ()
    context: CallContext = CallContext()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """What came of a request.

    Attributes:
        images: At least one.
        model: Name of the model that was used.
        compute_s: Seconds on the device.
        compute_type: What it was made on: cpu or gpu; cache, if it was made before.
        ignored_parameters: Parameters that were sent and had no effect.
    """

    images: tuple[Image, ...]
    model: str
    compute_s: float
    compute_type: str
    ignored_parameters: tuple[str, ...]

    @property
    def seed(self) -> int:
        """Seed of the first image."""
        return self.images[0].seed
