"""The parameters of a generation."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The parameters of a text-to-image task; None is unset.

    The contract's `TextToImageParameters` documents each name.
    """

    guidance_scale: float | None = None
    negative_prompt: str | None = None
    num_inference_steps: int | None = None
    width: int | None = None
    height: int | None = None
    scheduler: str | None = None
    seed: int | None = None
    step_reuse: float | None = None
