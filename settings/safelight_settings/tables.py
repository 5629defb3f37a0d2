"""Tables: the base classes of settings, which a program declares as pydantic models."""

from pydantic import BaseModel, ConfigDict
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


class Table(BaseModel):
    """Settings that belong together: a table of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ProgramSettings(BaseSettings):
    """All settings of a program; a subclass sets `env_prefix` in its `model_config`.

    Only `load` reads the environment and the file. The constructor takes what it is given.
    """

    model_config = SettingsConfigDict(
        env_nested_delimiter="__",
        case_sensitive=True,  # for keys of the file; `load` reads variables in either case
        extra="forbid",
        frozen=True,
        validate_default=True,
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
        """Take the constructor's arguments only."""
        return (init_settings,)
