"""ModelSettings: one served model, with its acceleration, limits and defaults."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from safelight_service.settings.adapter import AdapterSettings
from safelight_service.settings.sources import (
    COMMIT,
    EMBEDDED_MODEL,
    HUB_ID,
    HUB_REVISION,
    HubId,
    PinnedSource,
    Source,
)
from safelight_settings import Table, expand_home


class LimitSettings(Table):
    """Upper and lower bounds of requests to a model."""

    min_side_px: int = Field(64, ge=8, description="Smallest width and height.")
    max_side_px: int = Field(2048, ge=8, description="Largest width and height.")
    max_pixel_count: int = Field(2048 * 2048, ge=64, description="Largest width times height.")
    max_step_count: int = Field(150, ge=1, description="Maximum number of denoising steps.")
    max_guidance_scale: float = Field(50.0, ge=0, description="Highest guidance scale.")
    max_image_count: int = Field(
        8, ge=1, le=64, description="Maximum number of images in one request."
    )
    max_prompt_character_count: int = Field(
        10_000, ge=1, description="Longest prompt in characters, checked before tokenization."
    )

    max_step_reuse: float = Field(
        0.6,
        ge=0,
        le=0.6,
        description="Largest share of steps that reuse earlier outputs of the denoiser. 0 turns "
        "step reuse off.",
    )

    @model_validator(mode="after")
    def _check_sides(self) -> "LimitSettings":
        if self.min_side_px > self.max_side_px:
            raise ValueError("min_side_px must not exceed max_side_px")
        return self


class DefaultSettings(Table):
    """Values of parameters that a request leaves unset. Unset ones take the pipeline's default."""

    guidance_scale: float | None = Field(None, ge=0, description="Guidance scale.")
    num_inference_steps: int | None = Field(None, ge=1, description="Number of denoising steps.")
    width: int | None = Field(None, ge=8, description="Width in pixels.")
    height: int | None = Field(None, ge=8, description="Height in pixels.")
    scheduler: str | None = Field(None, description="Class or short name of the scheduler.")
    step_reuse: float = Field(
        0.0, ge=0, description="Share of steps that reuse earlier outputs of the denoiser."
    )


class AccelerationSettings(Table):
    """Options that make a model faster or smaller, at a cost in time, memory or precision."""

    compile: Literal["off", "regional", "full", "graphs"] = Field(
        "off",
        description="torch.compile of the denoiser. `regional`: its repeated blocks. `full`: all "
        "of it. `graphs`: all of it, ahead of time, for a few fixed widths at each size; on a GPU "
        "each is a CUDA graph.",
    )
    attention_backend: str | None = Field(
        None,
        description="Attention backend of diffusers, such as `native`, `flash`, `_flash_3`, `sage` "
        "or `xformers`. Unset: diffusers' default.",
    )
    channels_last: bool = Field(
        False, description="Channels-last memory layout for the convolutions of a UNet."
    )
    vae_channels_last: bool = Field(
        False, description="Channels-last memory layout for the convolutions of the VAE."
    )
    vae_tiling: bool = Field(False, description="Decode large images in tiles, to save memory.")
    quantization: Literal["none", "int8", "fp8"] = Field(
        "none",
        description="Quantize the denoiser's linear layers with torchao 0.17 or newer. `int8`: "
        "weights. `fp8`: weights and activations, with row-wise scales.",
    )
    offload: Literal["none", "model", "group"] = Field(
        "none",
        description="Keep weights in host memory until they are needed. `model`: whole models. "
        "`group`: groups of layers. Disables batching.",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> "AccelerationSettings":
        for name in ("compile", "quantization"):
            value = getattr(self, name)
            if self.offload != "none" and value not in ("off", "none"):
                raise ValueError(
                    f"offload = {self.offload!r} cannot be combined with {name} = {value!r}, "
                    "which needs weights that stay on the device"
                )
        return self


def _check_component(value: Any) -> Any:
    if value is False:
        return value
    if not isinstance(value, str) or not value:
        raise ValueError(
            "must be false, to leave the component out, or a folder or Hub id (owner/name@COMMIT)"
        )
    return str(expand_home(Path(value))) if value.startswith("~") else value


class ModelSettings(Table):
    """One served model."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$", description="Name in requests."
    )
    source: Annotated[str, Source()] = Field(
        min_length=1,
        description="Folder, Hub id (`owner/name`), or `shapes` for the embedded model. A folder "
        "takes precedence over a Hub id of its name.",
    )
    revision: str = Field(
        "",
        description="Hub commit, all 40 digits. For a folder, a label that callers see.",
    )
    allow_unpinned: bool = Field(
        False,
        description="Allow Hub ids with a tag, a branch or no revision, also in `components`. "
        "Anyone who can push there then decides what is served.",
    )
    variant: str | None = Field(
        None,
        description="Weights variant, such as `fp16`. Components without weights of it are read "
        "without a variant.",
    )
    components: Annotated[
        dict[str, Annotated[str | Literal[False], BeforeValidator(_check_component)]],
        PinnedSource(),
    ] = Field(
        {},
        description="Components to leave out (`false`), or to read from another folder or Hub id "
        "(`owner/name@COMMIT`).",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision. `auto`: bfloat16 on a GPU, float32 on a CPU. With float16, a VAE "
        "that overflows in it (`force_upcast` in its configuration: SDXL, AuraFlow) stays in "
        "float32, as in diffusers.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Torch device: `cpu`, `cuda`, `cuda:N` or `mps`. `auto`: cuda if there is a "
        "GPU, else cpu. The service does not start with a device that does not exist.",
    )
    preload: bool = Field(
        True,
        description="Load the model before the service is ready. False: the first request loads "
        "it.",
    )
    warm_up: bool = Field(True, description="Run one step after loading, before the first request.")
    adapters: list[AdapterSettings] = Field(
        [], description="Adapters (LoRA) that requests to the model may use."
    )
    acceleration: AccelerationSettings = AccelerationSettings()
    limits: LimitSettings = LimitSettings()
    defaults: DefaultSettings = DefaultSettings()

    @model_validator(mode="before")
    @classmethod
    def _complete_embedded_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") == EMBEDDED_MODEL:
            return {
                "limits": _EMBEDDED_LIMITS,
                "defaults": _EMBEDDED_DEFAULTS,
                "adapters": _EMBEDDED_ADAPTERS,
                **values,
            }
        return values

    @field_validator("source")
    @classmethod
    def _expand_source(cls, source: str) -> str:
        return str(expand_home(Path(source))) if source.startswith("~") else source

    @property
    def is_on_hub(self) -> bool:
        """Whether the source is a Hub id. A folder of that name takes precedence."""
        return bool(HUB_ID.fullmatch(self.source)) and not Path(self.source).is_dir()

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, or may be anything."""
        return self._allows(self.revision)

    def component_hub_id(self, name: str) -> HubId | None:
        """Return the Hub id that `components` names for a component; None if it is no Hub id."""
        source = self.components.get(name)
        found = HUB_REVISION.fullmatch(source) if source else None
        if not source or not found or Path(source).is_dir():
            return None
        return HubId(found[1], found[2] or "")

    def _allows(self, revision: str) -> bool:
        return self.allow_unpinned or bool(COMMIT.fullmatch(revision))

    @model_validator(mode="after")
    def _check_pin(self) -> "ModelSettings":
        if self.is_on_hub and not self.is_pinned:
            raise ValueError(
                f"{self.source!r} is not a folder, so it is a Hub id and must be pinned: set "
                "revision to the commit's 40 hexadecimal digits (under Files, History on the "
                "model's page), or set allow_unpinned = true to trust everyone who can push to it"
            )
        for name in self.components:
            hub_id = self.component_hub_id(name)
            if hub_id is not None and not self._allows(hub_id.revision):
                raise ValueError(
                    f"components.{name} of model {self.name!r}: {self.components[name]!r} is not a "
                    "folder, so it is a Hub id and must be pinned: append @ and the commit's 40 "
                    "hexadecimal digits, or set allow_unpinned = true"
                )
        return self

    @model_validator(mode="after")
    def _check_adapters(self) -> "ModelSettings":
        names = [adapter.name for adapter in self.adapters]
        for adapter in self.adapters:
            if names.count(adapter.name) > 1:
                raise ValueError(f"adapters: two have the name {adapter.name!r}")
            if adapter.is_on_hub and not self._allows(adapter.revision):
                raise ValueError(
                    f"adapter {adapter.name!r}: {adapter.source!r} is not a folder, so it is a Hub "
                    "id and must be pinned: set its revision to the commit's 40 hexadecimal "
                    "digits, or set allow_unpinned = true"
                )
        if self.adapters and self.acceleration.compile == "regional":
            raise ValueError(
                'adapters cannot be combined with acceleration.compile = "regional", whose '
                'compiled blocks would leave them out; "full" and "graphs" can'
            )
        return self


_EMBEDDED_LIMITS = LimitSettings(max_side_px=512, max_pixel_count=512 * 512)
_EMBEDDED_DEFAULTS = DefaultSettings(num_inference_steps=20, guidance_scale=4.0)
_EMBEDDED_ADAPTERS = [
    AdapterSettings(name=name, file=f"adapters/{name}.safetensors", description=description)
    for name, description in (
        ("pastel", "Light colours."),
        ("outline", "Dark lines around things."),
    )
]
