"""A generation as the core knows it: the request, and the events it leads to.

Field names are those of the contract, so that an error can name the field.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Parameters:
    """The Hugging Face task's parameters; None means unset."""

    guidance_scale: float | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Format of the images; `quality` from 1 to 100 for lossy formats."""

    mime_type: str = ""
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """Which previews are wanted; an interval of 0 wants none."""

    interval_steps: int = 0
    mime_type: str = ""
    max_side_px: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What a caller asks for, as it was sent; equal ones ask for the same."""

    inputs: str
    parameters: Parameters = field(default_factory=Parameters)
    model: str = ""
    generation_id: str = ""
    image_count: int | None = None
    output: OutputOptions = field(default_factory=OutputOptions)
    preview: PreviewOptions = field(default_factory=PreviewOptions)
    linger_s: float = 0.0
    waits_for_model: bool = field(default=False, compare=False)
    uses_cache: bool = field(default=True, compare=False)
    deadline_at: float | None = field(default=None, compare=False)
    """When the answer is of no use any more, by the clock of time.monotonic."""


@dataclass(frozen=True, slots=True)
class ResolvedParameters:
    """The parameters with every default filled in.

    `guidance_scale` and `negative_prompt` are None where the model does not
    honour them, and `negative_prompt` also where there is none.
    """

    guidance_scale: float | None
    negative_prompt: str | None
    num_inference_steps: int
    width: int
    height: int
    scheduler: str
    seed: int


@dataclass(frozen=True, slots=True)
class ResolvedOutput:
    """Format of the images; `quality` is None for lossless formats."""

    mime_type: str
    quality: int | None


@dataclass(frozen=True, slots=True)
class ResolvedPreview:
    """Previews after every `interval_steps`th step."""

    interval_steps: int
    mime_type: str
    max_side_px: int


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A valid request in which nothing is left to choose."""

    inputs: str
    parameters: ResolvedParameters
    image_count: int
    output: ResolvedOutput
    preview: ResolvedPreview | None


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
