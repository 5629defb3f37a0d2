"""AdapterSettings: one adapter (LoRA) of a served model."""

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from safelight_service.settings.sources import HUB_ID, Source
from safelight_settings import Table, expand_home


class AdapterSettings(Table):
    """One adapter of a model."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$", description="Name in requests."
    )
    source: Annotated[str, Source()] = Field(
        "",
        description="Folder or Hub id (`owner/name`). Empty: the folder of the model. A folder "
        "takes precedence over a Hub id of its name.",
    )
    revision: str = Field("", description="Hub commit, all 40 digits.")
    file: str = Field(
        "",
        description="File of safetensors in the source. Empty: its only one, or the one with the "
        "name that diffusers or PEFT gives it.",
    )
    description: str = Field(
        "", max_length=1000, description="Text for callers, such as its effect and trigger words."
    )
    default_scale: float = Field(1.0, description="Scale of requests that leave it unset.")
    min_scale: float = Field(0.0, ge=-10, description="Lowest scale.")
    max_scale: float = Field(2.0, le=10, description="Highest scale.")
    preload: bool = Field(
        True,
        description="Load the adapter with its model. False: the first request that uses it loads "
        "it.",
    )

    @field_validator("source")
    @classmethod
    def _expand_source(cls, source: str) -> str:
        return str(expand_home(Path(source))) if source.startswith("~") else source

    @property
    def is_on_hub(self) -> bool:
        """Whether the source is a Hub id. A folder of that name takes precedence."""
        return bool(HUB_ID.fullmatch(self.source)) and not Path(self.source).is_dir()

    @model_validator(mode="after")
    def _check(self) -> "AdapterSettings":
        if not self.min_scale <= self.default_scale <= self.max_scale:
            raise ValueError("default_scale must be from min_scale to max_scale")
        path = PurePosixPath(self.file)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError("file must be a path inside the source")
        if self.file and path.suffix != ".safetensors":
            raise ValueError("file must be one of safetensors: other formats may run code")
        if not (self.source or self.file):
            raise ValueError("needs a source, or a file in the folder of the model")
        return self
