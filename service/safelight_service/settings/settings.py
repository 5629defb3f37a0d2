"""All settings of the service, and where they come from."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from safelight_service.settings.model import EMBEDDED_MODEL, ModelSettings
from safelight_service.settings.parts import (
    BatchingSettings,
    CacheSettings,
    ConnectionSettings,
    GenerationSettings,
    TelemetrySettings,
    TlsSettings,
)
from safelight_settings import Address, ConfigPath, OptionalPath, ProgramSettings, load

_FOREIGN_VARIABLES = re.compile(r"SAFELIGHT_(TARGET|TOKEN|GATEWAY_\w+)")
"""Of the client's command line and of the gateway."""


class Settings(ProgramSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(env_prefix="SAFELIGHT_")

    tls: TlsSettings | None = Field(None, description="Certificates. Unset: no encryption.")
    tokens_file: ConfigPath | None = Field(
        None, description="TOML file of the tokens that calls must carry. Unset: they need none."
    )
    allow_anonymous: bool = Field(
        False,
        description="Whether to serve callers without a token or a certificate on other addresses "
        "than loopback.",
    )
    listen: Address = Field(
        "127.0.0.1:50051", description="HOST:PORT to serve on; port 0 picks a free one."
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
    batching: BatchingSettings = Field(default_factory=BatchingSettings)
    generations: GenerationSettings = Field(default_factory=GenerationSettings)
    connections: ConnectionSettings = Field(default_factory=ConnectionSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
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

    @field_validator("listen")
    @classmethod
    def _check_exposure(cls, listen: str, info: ValidationInfo) -> str:
        if not {"tls", "tokens_file", "allow_anonymous"} <= info.data.keys():
            return listen  # one of them is wrong, which is said already
        tls = info.data["tls"]
        knows_callers = info.data["tokens_file"] is not None or (
            tls is not None and tls.client_authorities is not None
        )
        if not (knows_callers or info.data["allow_anonymous"] or _is_loopback(listen)):
            raise ValueError(
                f"{listen} lets other machines in, and anybody on them; set tokens_file or "
                "tls.client_authorities, or listen on 127.0.0.1, or set allow_anonymous = true"
            )
        return listen

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        if not models:
            raise ValueError("at least one is needed")
        names = [model.name for model in models]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"each name once, but these repeat: {', '.join(doubled)}")
        return models

    @field_validator("default_model")
    @classmethod
    def _check_default_model(cls, name: str, info: ValidationInfo) -> str:
        names = [model.name for model in info.data.get("models", ())]
        if name and names and name not in names:
            raise ValueError(f"{name!r} is not one of: {', '.join(names)}")
        return name


def load_settings(
    options: Mapping[str, object] | None = None, config_file: Path | None = None
) -> Settings:
    """Load the settings from all sources; `options` come from the command line.

    Raises:
        ConfigurationError: a source cannot be read, or gives what is not allowed.
    """
    return load(Settings, options, config_file, _FOREIGN_VARIABLES)


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
