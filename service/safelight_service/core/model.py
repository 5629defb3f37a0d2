"""Model: its state, the parameters that it supports, its defaults and its limits."""

from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of requests; sizes in pixels."""

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


@dataclass(frozen=True, slots=True)
class Defaults:
    """Values of unset parameters; `guidance_scale` and `step_reuse` are None if not supported."""

    guidance_scale: float | None
    num_inference_steps: int
    width: int
    height: int
    scheduler: str
    step_reuse: float | None = None


@dataclass(frozen=True, slots=True)
class SchedulerInfo:
    """A diffusers scheduler class, its short names and its own step limit."""

    name: str
    aliases: tuple[str, ...]
    max_step_count: int | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Parameters, schedulers and limits of a loaded model."""

    pipeline_class: str
    supported_parameters: tuple[str, ...]
    defaults: Defaults
    schedulers: tuple[SchedulerInfo, ...]
    limits: Limits
    has_previews: bool
    device_type: str = ""
    """torch's name of the device type, such as `cpu` or `cuda`."""


class ModelState(Enum):
    """Whether a model can be used at once."""

    NOT_LOADED = "not loaded"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A served model; `capabilities` is None until it has been loaded."""

    name: str
    revision: str
    is_default: bool
    state: ModelState
    capabilities: Capabilities | None
