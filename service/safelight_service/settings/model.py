"""Settings of a model."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from safelight_settings import PathField, Table, expand_home

EMBEDDED_MODEL = "shapes"
"""Name of the model that ships with the service, and the `source` that means it."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class LimitSettings(Table):
    """The most that requests may ask of a model."""

    min_side_px: int = Field(64, ge=8, description="Smallest width and height.")
    max_side_px: int = Field(2048, ge=8, description="Largest width and height.")
    max_pixel_count: int = Field(2048 * 2048, ge=64, description="Largest width times height.")
    max_step_count: int = Field(150, ge=1, description="Most denoising steps.")
    max_guidance_scale: float = Field(50.0, ge=0, description="Highest guidance scale.")
    max_image_count: int = Field(8, ge=1, le=64, description="Most images in one request.")
    max_prompt_character_count: int = Field(
        10_000, ge=1, description="Most characters of a prompt, checked before it is tokenised."
    )

    @model_validator(mode="after")
    def _check_sides(self) -> "LimitSettings":
        if self.min_side_px > self.max_side_px:
            raise ValueError("min_side_px must not be larger than max_side_px")
        return self


class DefaultSettings(Table):
    """What unset parameters become, where it should not be the pipeline's own default."""

    guidance_scale: float | None = Field(None, ge=0)
    num_inference_steps: int | None = Field(None, ge=1)
    width: int | None = Field(None, ge=8)
    height: int | None = Field(None, ge=8)
    scheduler: str | None = None


class AccelerationSettings(Table):
    """What makes a model faster or smaller, and what that costs."""

    compile: Literal["off", "regional", "full", "graphs"] = Field(
        "off",
        description="torch.compile of the denoiser: its repeated blocks, or all of it, which takes "
        "minutes for the first picture; or all of it for a few fixed widths at each size, ahead, "
        "each a CUDA graph on a GPU.",
    )
    attention_backend: str | None = Field(
        None, description="Of diffusers, such as native, flash, _flash_3, sage or xformers."
    )
    channels_last: bool = Field(False, description="Memory layout for the convolutions of a UNet.")
    vae_tiling: bool = Field(False, description="Decode large pictures in tiles: slower, smaller.")
    quantization: Literal["none", "int8", "fp8"] = Field(
        "none",
        description="Of the denoiser's linear layers, by torchao: int8 weights, or weights and "
        "activations in 8-bit floats scaled row by row.",
    )
    offload: Literal["none", "model", "group"] = Field(
        "none",
        description="Keep weights in the host's memory until they are needed: whole models, or "
        "groups of layers. Nothing is merged then.",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> "AccelerationSettings":
        for name in ("compile", "quantization"):
            value = getattr(self, name)
            if self.offload != "none" and value not in ("off", "none"):
                raise ValueError(
                    f"offload = {self.offload!r} and {name} = {value!r} cannot be combined: "
                    "offloaded weights move, and the other needs them to stay"
                )
        return self


class _Source(PathField):
    """Metadata of a model's source, which is a path unless it is a Hub id or the embedded model."""

    def resolve(self, value: str, folder: Path) -> str:
        is_path = not _HUB_ID.fullmatch(value) or (folder / value).is_dir()
        return super().resolve(value, folder) if is_path and value != EMBEDDED_MODEL else value


class ModelSettings(Table):
    """One model that is served."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$", description="Name in calls.")
    source: Annotated[str, _Source()] = Field(
        min_length=1,
        description='A folder, a Hub id ("owner/name"), or "shapes" for the embedded model.',
    )
    revision: str = Field("", description="Hub commit; for a folder, a label.")
    allow_unpinned: bool = Field(
        False,
        description="Whether a Hub id may do without a commit, or with a tag or a branch as its "
        "revision. Who can push there then decides what is served.",
    )
    variant: str | None = Field(None, description='Weights variant, such as "fp16".')
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision. auto: bfloat16 on a GPU, float32 on a CPU. With float16, a VAE "
        "that overflows in it (SDXL, AuraFlow) stays in float32.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Torch device. auto: cuda where there is one, else cpu.",
    )
    preload: bool = Field(True, description="Load before the service says that it is ready.")
    warm_up: bool = Field(
        True, description="Make a picture of one step after loading, before anybody waits for one."
    )
    acceleration: AccelerationSettings = AccelerationSettings()
    limits: LimitSettings = LimitSettings()
    defaults: DefaultSettings = DefaultSettings()

    @model_validator(mode="before")
    @classmethod
    def _know_the_embedded_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") == EMBEDDED_MODEL:
            return {"limits": _EMBEDDED_LIMITS, "defaults": _EMBEDDED_DEFAULTS, **values}
        return values

    @field_validator("source")
    @classmethod
    def _expand_source(cls, source: str) -> str:
        return str(expand_home(Path(source))) if source.startswith("~") else source

    @property
    def is_on_hub(self) -> bool:
        """Whether the source is a Hub id; a folder of that name comes first."""
        return bool(_HUB_ID.fullmatch(self.source)) and not Path(self.source).is_dir()

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, or need not be one."""
        return self.allow_unpinned or bool(_COMMIT.fullmatch(self.revision))

    @model_validator(mode="after")
    def _check_pin(self) -> "ModelSettings":
        if self.is_on_hub and not self.is_pinned:
            raise ValueError(
                f"{self.source!r} is no folder, and as a Hub id it must be pinned: set revision to "
                "the commit's 40 hexadecimal digits (under Files, History on the model's page), "
                "or allow_unpinned = true to trust whoever can push to it"
            )
        return self


_EMBEDDED_LIMITS = LimitSettings(max_side_px=512, max_pixel_count=512 * 512)
_EMBEDDED_DEFAULTS = DefaultSettings(num_inference_steps=20, guidance_scale=4.0)
