"""Request: as a caller sent it, and as it resolves.

Fields are named as in the contract, so that errors can name them.
"""

from dataclasses import dataclass, field

from safelight_service.core.tenant import NO_TENANT, Tenant


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of the Hugging Face task text-to-image; None means unset."""

    guidance_scale: float | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    seed: int | None = None
    step_reuse: float | None = None


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """Format of the images; `quality` from 1 to 100 for lossy formats."""

    mime_type: str = ""
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class PreviewOptions:
    """Previews of unfinished images; none if `interval_steps` is 0."""

    interval_steps: int = 0
    mime_type: str = ""
    max_side_px: int | None = None


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request as a caller sent it; equal requests ask for the same images."""

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
    """The caller's deadline, a moment of time.monotonic."""
    tenant: Tenant = field(default=NO_TENANT, compare=False)
    """The party that its device time counts for."""
    cache_scope: str = field(default="", compare=False)
    """Name of the callers that share its results; empty for all callers."""
    run_key: str = field(default="", compare=False)
    """Name of its run, the same in each attempt; empty if it is not attempted again."""
    open_seed: int | None = field(default=None, compare=False)
    """Seed to use if the parameters have none; None: a random one."""


@dataclass(frozen=True, slots=True)
class ResolvedParameters:
    """Parameters with every default filled in.

    `guidance_scale` and `negative_prompt` are None if the model does not support them;
    `negative_prompt` is None also if it is empty. `step_reuse` is None if the model has none.
    """

    guidance_scale: float | None
    negative_prompt: str | None
    num_inference_steps: int
    width: int
    height: int
    scheduler: str
    seed: int
    step_reuse: float | None = None


@dataclass(frozen=True, slots=True)
class ResolvedOutput:
    """Format of the images; `quality` is None for lossless formats."""

    mime_type: str
    quality: int | None


@dataclass(frozen=True, slots=True)
class ResolvedPreview:
    """A preview after every `interval_steps`th step, of at most `max_side_px`."""

    interval_steps: int
    mime_type: str
    max_side_px: int


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A valid request with every default filled in."""

    inputs: str
    parameters: ResolvedParameters
    image_count: int
    output: ResolvedOutput
    preview: ResolvedPreview | None
