"""The models of a service: parameters, limits and readiness."""

from dataclasses import dataclass
from enum import StrEnum

from safelight.parameters import Parameters


class ModelState(StrEnum):
    """Readiness of a model."""

    UNKNOWN = "unknown"
    """A state of a newer service."""
    NOT_LOADED = "not loaded"
    """Not in memory; the first request for it loads it."""
    LOADING = "loading"
    """Being loaded."""
    READY = "ready"
    """In memory and ready."""
    FAILED = "failed"
    """Could not be loaded; the next request for it tries again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """A scheduler that a model supports.

    Attributes:
        name: Name of the diffusers class.
        aliases: Short names of this class, each with its own settings.
        max_step_count: Highest number of steps; None for the model's `max_step_count`.
    """

    name: str
    aliases: tuple[str, ...]
    max_step_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of requests for a model.

    Attributes:
        min_side_px: Smallest width and height.
        max_side_px: Largest width and height.
        size_multiple_px: Width and height must be multiples of this.
        max_pixel_count: Largest product of width and height.
        max_step_count: Highest number of denoising steps.
        max_guidance_scale: Highest guidance scale.
        max_image_count: Highest number of images in one request.
        max_prompt_token_count: Highest number of tokens of a prompt; None for no limit.
        max_prompt_character_count: Highest number of characters of a prompt.
        max_step_reuse: Largest share of steps that may reuse earlier outputs; 0 for none.
    """

    min_side_px: int
    max_side_px: int
    size_multiple_px: int
    max_pixel_count: int
    max_step_count: int
    max_guidance_scale: float
    max_image_count: int
    max_prompt_token_count: int | None
    max_prompt_character_count: int
    max_step_reuse: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Parameters and limits of a loaded model.

    Attributes:
        pipeline_class: Class of its diffusers pipeline.
        supported_parameters: Names of the supported fields of `Parameters`.
        defaults: Values of unset parameters; `seed` is None, since it is random.
        schedulers: Supported schedulers, the model's own first.
        limits: Limits of requests.
        has_previews: Whether it supports previews.
        device_type: Type of its device: `cpu`, `cuda` or `mps`; empty if unknown.
    """

    pipeline_class: str
    supported_parameters: tuple[str, ...]
    defaults: Parameters
    schedulers: tuple[Scheduler, ...]
    limits: Limits
    has_previews: bool
    device_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model of the service.

    Attributes:
        name: Name for requests.
        revision: Revision; empty if unknown.
        is_default: Whether requests without a model use this one.
        state: Readiness.
        capabilities: Parameters and limits; None before the first load.
    """

    name: str
    revision: str
    is_default: bool
    state: ModelState
    capabilities: Capabilities | None
