"""The models that a service has: what each one takes and whether it is ready."""

from dataclasses import dataclass
from enum import StrEnum

from safelight.parameters import Parameters


class ModelState(StrEnum):
    """Whether a model can be used at once."""

    UNKNOWN = "unknown"
    """A state that this version of the client does not know."""
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
    """A scheduler that a model can be used with.

    Attributes:
        name: Name of the diffusers class.
        aliases: Short names that give this class, each with its own settings.
        max_step_count: Most steps that it can make; None for the model's `max_step_count`.
    """

    name: str
    aliases: tuple[str, ...]
    max_step_count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of what requests may ask of a model.

    Attributes:
        min_side_px: Smallest width and height.
        max_side_px: Largest width and height.
        size_multiple_px: Width and height must be multiples of this.
        max_pixel_count: Largest product of width and height.
        max_step_count: Most denoising steps.
        max_guidance_scale: Highest guidance scale.
        max_image_count: Most images in one request.
        max_prompt_token_count: Most tokens of a prompt; None for no limit.
        max_prompt_character_count: Most characters of a prompt.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a loaded model takes.

    Attributes:
        pipeline_class: Class of its diffusers pipeline.
        supported_parameters: Names of the fields of `Parameters` that it supports.
        defaults: What unset parameters become; `seed` is None, it is random.
        schedulers: Those it can be used with, the one it comes with first.
        limits: What requests may ask for.
        has_previews: Whether previews can be had.
        device_type: Type of the device that runs it: `cpu`, `cuda` or `mps`; empty where
            the service does not tell.
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
    """A model that is served.

    Attributes:
        name: Name to use in requests.
        revision: Its revision; empty where none is known.
        is_default: Whether requests that name no model get this one.
        state: Whether it can be used at once.
        capabilities: What it takes; None until it was loaded for the first time.
    """

    name: str
    revision: str
    is_default: bool
    state: ModelState
    capabilities: Capabilities | None
