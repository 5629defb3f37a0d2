"""The arguments of the tools, with their JSON schemas."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safelight.errors import FieldViolation, InvalidRequestError

_NAMES = {
    "inputs": "prompt",
    "output.mime_type": "output_mime_type",
    "output.quality": "output_quality",
}
"""Arguments by fields of the contract, where they are not the last part of their names."""


class NoArguments(BaseModel):
    """Arguments of a tool that takes none."""

    model_config = ConfigDict(extra="forbid")


class ImageArguments(BaseModel):
    """Arguments of generate_image: the parameters of the contract."""

    model_config = ConfigDict(extra="forbid", strict=True)

    prompt: str = Field(description="What to draw.")
    negative_prompt: str | None = Field(None, description="What the image should not show.")
    width: int | None = Field(None, description="Width in pixels.")
    height: int | None = Field(None, description="Height in pixels.")
    num_inference_steps: int | None = Field(
        None, description="Number of denoising steps; the time is proportional to it."
    )
    guidance_scale: float | None = Field(
        None, description="How strongly the image follows the prompt; 1 and below: not at all."
    )
    scheduler: str | None = Field(None, description="Scheduler; list_models has their names.")
    seed: int | None = Field(
        None, description="Seed of the noise, to get the same image again. Default: random."
    )
    step_reuse: float | None = Field(
        None,
        description="Share of steps that reuse earlier results: faster, less exact. Default: the "
        "model's.",
    )
    model: str | None = Field(None, description="Model; list_models has their names.")
    image_count: int | None = Field(
        None, description="Number of images; image i has the seed `seed + i`. Default: 1."
    )
    adapters: dict[str, float | None] | None = Field(
        None,
        description="Adapters (LoRA) with their strengths, null for the default one; list_models "
        "has their names.",
    )
    output_mime_type: Literal["image/png", "image/jpeg", "image/webp"] | None = Field(
        None, description="Format. Default: image/png."
    )
    output_quality: int | None = Field(
        None, description="Quality of JPEG and WebP, from 1 to 100. Default: 95."
    )
    generation_id: str | None = Field(
        None,
        description="Name for the generation. The same arguments with the same name give the same "
        "images, without making them again while the service keeps them.",
    )
    linger: float = Field(
        10.0,
        description="Seconds for which the generation outlives a broken connection, to be resumed.",
    )
    use_cache: bool = Field(True, description="Whether a cached result may answer.")
    wait_for_model: bool = Field(True, description="Whether to wait for a model that loads.")


def parse_image_arguments(values: object) -> ImageArguments:
    """Parse the arguments of generate_image.

    Raises:
        InvalidRequestError: an argument is missing, unknown or of another type.
    """
    try:
        return ImageArguments.model_validate(values)
    except ValidationError as error:
        violations = tuple(
            FieldViolation(".".join(map(str, each["loc"])), each["msg"]) for each in error.errors()
        )
        raise InvalidRequestError("invalid arguments", violations=violations) from error


def argument_of(field: str) -> str:
    """Return the argument for a field of the contract."""
    return _NAMES.get(field, field.removeprefix("parameters."))
