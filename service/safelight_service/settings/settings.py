"""All settings of the service, and where they come from."""

import difflib
import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from safelight_service.settings.model import EMBEDDED_MODEL, ModelSettings
from safelight_service.settings.parts import (
    BatchingSettings,
    CacheSettings,
    ConnectionSettings,
    GenerationSettings,
    TelemetrySettings,
    TlsSettings,
)
from safelight_service.settings.table import OptionalPath, check_address

_ENV_PREFIX = "SAFELIGHT_"
_CLIENT_VARIABLES = frozenset({"SAFELIGHT_TARGET", "SAFELIGHT_TOKEN"})
_CONFIG_VARIABLE = "SAFELIGHT_CONFIG"
_GATEWAY_PREFIX = "SAFELIGHT_GATEWAY_"
"""Of the gateway's own settings."""


class Settings(BaseSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # some settings are secrets
    )

    listen: Annotated[str, AfterValidator(check_address)] = Field(
        "127.0.0.1:50051", description="HOST:PORT to serve on; port 0 picks a free one."
    )
    tls: TlsSettings | None = Field(None, description="Certificates. Unset: no encryption.")
    tokens_file: Path | None = Field(
        None, description="TOML file of the tokens that calls must carry. Unset: they need none."
    )
    allow_anonymous: bool = Field(
        False,
        description="Whether to serve callers without a token or a certificate on other addresses "
        "than loopback.",
    )
    models: tuple[ModelSettings, ...] = Field(
        (ModelSettings(name=EMBEDDED_MODEL, source=EMBEDDED_MODEL),),
        description="The models; no others are served.",
    )
    model_memory_gib: float | None = Field(
        None,
        gt=0,
        description="Memory of each device for the weights of its models; beyond it, the least "
        "recently used model that is idle makes room. Unset: four fifths of what a GPU has free at "
        "the start, and no limit on a CPU.",
    )
    default_model: str = Field("", description="Model of calls that name none. Empty: the first.")
    batching: BatchingSettings = BatchingSettings()
    generations: GenerationSettings = GenerationSettings()
    connections: ConnectionSettings = ConnectionSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    cache: CacheSettings = CacheSettings()
    compile_cache: OptionalPath = Field(
        Path("~/.cache/safelight/inductor"),
        description="Folder of compiled code, for all models; TORCHINDUCTOR_CACHE_DIR comes first. "
        "Who can write there runs code in the service. Empty: torch's own, below /tmp.",
    )
    queue_size: int = Field(
        64,
        ge=0,
        description="Generations that may wait for each device; more are refused "
        "(RESOURCE_EXHAUSTED).",
    )
    heartbeat_s: float = Field(
        5.0,
        gt=0,
        description="Seconds of silence after which an event is repeated as a sign of life; "
        "below the idle time-outs of common proxies.",
    )
    grace_s: float = Field(
        30.0, ge=0, description="Seconds that running generations get to finish on SIGTERM."
    )
    step_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds that one call on the device may take before the device is taken for "
        "lost and the process exits. The first call of a compiled model takes minutes.",
    )
    torch_threads: int | None = Field(
        None, ge=1, description="Threads of CPU inference. Unset: torch decides."
    )
    reflection: bool = Field(True, description="Whether gRPC server reflection is on.")
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _check_models(self) -> "Settings":
        if not self.models:
            raise ValueError("models: at least one is needed")
        names = [model.name for model in self.models]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"models: each name once, but these repeat: {', '.join(doubled)}")
        if self.default_model and self.default_model not in names:
            raise ValueError(
                f"default_model: {self.default_model!r} is not one of: {', '.join(names)}"
            )
        return self

    @model_validator(mode="after")
    def _check_exposure(self) -> "Settings":
        knows_callers = self.tokens_file is not None or (
            self.tls is not None and self.tls.client_authorities is not None
        )
        if not (knows_callers or self.allow_anonymous or _is_loopback(self.listen)):
            raise ValueError(
                f"listen: {self.listen} lets other machines in, and anybody on them; set "
                "tokens_file or tls.client_authorities, or listen on 127.0.0.1, or set "
                "allow_anonymous = true"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line, the environment and the TOML file, in this order."""
        assert isinstance(init_settings, InitSettingsSource)
        assert isinstance(env_settings, EnvSettingsSource)
        config_file = init_settings.init_kwargs.pop("config_file", None)
        toml = TomlConfigSettingsSource(settings_cls, config_file)
        return init_settings, env_settings, toml


def load_settings(
    overrides: Mapping[str, object] | None = None,
    config_file: Path | None = None,
) -> Settings:
    """Read the settings from all sources; `overrides` come from the command line.

    Raises:
        ValueError: a value is not allowed (pydantic's ValidationError, which
            names it), or a `SAFELIGHT_...` variable is not a setting.
        FileNotFoundError: the configuration file does not exist.
    """
    _refuse_unknown_variables()
    if config_file is None and os.environ.get(_CONFIG_VARIABLE):
        config_file = Path(os.environ[_CONFIG_VARIABLE])
    if config_file is not None and not config_file.is_file():
        raise FileNotFoundError(f"no configuration file at {config_file}")
    values: dict[str, object] = {**(overrides or {}), "config_file": config_file}
    return Settings(**values)  # type: ignore[arg-type]


def _refuse_unknown_variables() -> None:
    known = {f"{_ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    allowed = known | _CLIENT_VARIABLES | {_CONFIG_VARIABLE}
    for name in sorted(os.environ):
        if name.upper().startswith(_GATEWAY_PREFIX):
            continue
        if name.upper().startswith(_ENV_PREFIX) and name.upper() not in allowed:
            close = difflib.get_close_matches(name.upper(), allowed, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ValueError(f"the environment variable {name} is not a setting{hint}")


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
