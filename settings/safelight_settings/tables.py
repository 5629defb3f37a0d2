"""Tables: base classes for the pydantic models that declare settings."""

from pydantic import BaseModel, ConfigDict
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class Table(BaseModel):
    """A group of settings: a table of the TOML file."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class ProgramSettings(BaseSettings):
    """All settings of a program; a subclass sets `env_prefix` in its `model_config`.

    Only `load` reads the environment and the file; the constructor takes values.
    """

    model_config = SettingsConfigDict(
        env_nested_delimiter="__",
        case_sensitive=True,  # keys of the file; `load` reads variables in any case
        extra="forbid",
        frozen=True,
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # some settings are secrets
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the constructor's arguments."""
        return (init_settings,)
