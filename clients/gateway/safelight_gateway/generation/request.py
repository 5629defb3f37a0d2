"""The image request that all dialects share, and its result."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from safelight import Image

from safelight_gateway.generation.field_names import FieldNames
from safelight_gateway.generation.shape import Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """Identity, trace and deadline of a call.

    Attributes:
        credential: Token for the service; None if the caller sent none.
        address: IP address of the caller; empty if unknown.
        metadata: Further gRPC metadata: trace context and request id.
        deadline_s: Deadline on the monotonic clock, in seconds; None if the caller set none.
    """

    credential: str | None = field(default=None, repr=False)
    address: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    deadline_s: float | None = None

    @property
    def call_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a gRPC call, with the credential and the address."""
        authorization = (("authorization", f"Bearer {self.credential}"),) if self.credential else ()
        address = (("x-forwarded-for", self.address),) if self.address else ()
        return (*authorization, *address, *self.metadata)

    def timeout_s(self, longest_s: float) -> float:
        """Return the seconds until the deadline, at most `longest_s`."""
        if self.deadline_s is None:
            return longest_s
        return min(longest_s, max(0.0, self.deadline_s - time.monotonic()))


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest:
    """A request for images. None leaves a parameter to the model.

    Attributes:
        prompt: Text to draw.
        model: Ids of the model as the caller wrote it. The first known one counts; none
            means the default model.
        adapters: Scales by name of the model's adapters; None takes the adapter's default.
        count: Number of images.
        output_mime_type: image/png, image/jpeg or image/webp.
        output_quality: Quality of JPEG and WebP, from 1 to 100.
        use_cache: Whether a cached result may answer the request.
        wait_for_model: Whether to wait while the model loads.
        shape: Ratio or area, from which the model's limits make width and height.
        preview_count: Number of previews of each image; fewer where it has too few steps.
        wants_data: Whether the answer holds data: URLs instead of links.
        ignored_fields: Names of sent fields without effect.
        field_names: The caller's names of the fields.
        context: Identity, trace and deadline of the call.
    """

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    scheduler: str | None = None
    seed: int | None = None
    step_reuse: float | None = None
    adapters: Mapping[str, float | None] = field(default_factory=dict)
    count: int = 1
    model: tuple[str, ...] = ()
    output_mime_type: str = "image/png"
    output_quality: int | None = None
    use_cache: bool = True
    wait_for_model: bool = True
    shape: Shape | None = None
    preview_count: int = 0
    wants_data: bool = False
    ignored_fields: tuple[str, ...] = ()
    field_names: FieldNames = field(default_factory=FieldNames)
    context: CallContext = CallContext()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """Result of a request.

    Attributes:
        images: The images, at least one.
        model: Name of the served model.
        compute_s: Device time, in seconds.
        compute_type: cpu, gpu, or cache for a cached result.
        ignored_fields: Names of sent fields without effect.
    """

    images: tuple[Image, ...]
    model: str
    compute_s: float
    compute_type: str
    ignored_fields: tuple[str, ...]

    @property
    def seed(self) -> int:
        """Seed of the first image."""
        return self.images[0].seed
