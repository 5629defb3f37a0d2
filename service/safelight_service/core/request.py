"""A request as the core knows it: what a caller asked for, and what it resolves to.

Field names are those of the contract, so that an error can name the field.
"""

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
    support them, and `negative_prompt` also where there is none.
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
