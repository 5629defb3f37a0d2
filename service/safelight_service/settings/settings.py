"""Settings: everything that an operator can set, and the checks across settings."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from safelight_service.settings.fleet import (
    FleetSettings,
    RaySettings,
    RecoverySettings,
)
from safelight_service.settings.model import ModelSettings
from safelight_service.settings.parts import (
    BatchingSettings,
    CacheSettings,
    ConnectionSettings,
    GenerationSettings,
    TelemetrySettings,
    TlsSettings,
)
from safelight_service.settings.provenance import ProvenanceSettings
from safelight_service.settings.sources import EMBEDDED_MODEL
from safelight_settings import (
    Address,
    ConfigPath,
    Network,
    OptionalPath,
    ProgramSettings,
    default_cache,
    load,
)

_FOREIGN_VARIABLES = re.compile(r"SAFELIGHT_(TARGET|TOKEN|GATEWAY_\w+)")
"""Variables of the client's command line and of the gateway."""


class Settings(ProgramSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(env_prefix="SAFELIGHT_")

    tls: TlsSettings | None = Field(None, description="Certificates. Unset: no encryption.")
    tokens_file: ConfigPath | None = Field(
        None,
        description="TOML file of accepted tokens, reloaded when it changes. Unset: calls need no "
        "token.",
    )
    allow_anonymous: bool = Field(
        False,
        description="Serve callers without token or certificate on addresses other than loopback. "
        "False: the service refuses to start there.",
    )
    listen: Address = Field(
        "127.0.0.1:50051",
        description="HOST:PORT to listen on. Port 0 picks a free one; the ready line shows it.",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="Addresses or networks of proxies, such as the HTTP gateway's. Without tokens, "
        "their calls count for the client that `x-forwarded-for` names; that of others is ignored.",
    )
    models: tuple[ModelSettings, ...] = Field(
        (ModelSettings(name=EMBEDDED_MODEL, source=EMBEDDED_MODEL),),
        description="Models to serve. Unset: the embedded model.",
    )
    model_memory_gib: float | None = Field(
        None,
        gt=0,
        description="Memory on each device for model weights. Beyond it, the least recently used "
        "idle model is unloaded. Unset: on a GPU, four fifths of the memory free at start; on a "
        "CPU, unlimited.",
    )
    default_model: str = Field(
        "", description="Model for requests that name none. Empty: the first."
    )
    batching: BatchingSettings = Field(default_factory=BatchingSettings)
    generations: GenerationSettings = Field(default_factory=GenerationSettings)
    connections: ConnectionSettings = Field(default_factory=ConnectionSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    cache: CacheSettings = Field(default_factory=CacheSettings)
    provenance: ProvenanceSettings = Field(default_factory=ProvenanceSettings)
    backend: Literal["local", "ray"] = Field(
        "local",
        description="Where the engines run: `local` in this process, `ray` on a Ray cluster.",
    )
    ray: RaySettings = Field(default_factory=RaySettings)
    fleet: FleetSettings | None = Field(
        None,
        description="Services that answer calls about each other's generations. Unset: this one is "
        "alone.",
    )
    recovery: RecoverySettings | None = Field(
        None,
        description="Logs of denoising, from which another engine continues a generation. Unset: "
        "it makes all steps again.",
    )
    compile_cache: OptionalPath = Field(
        default_factory=default_cache("inductor"),
        description="Folder for code compiled by `acceleration.compile`, shared by all models; "
        "makes later starts fast. Default: `~/.cache/safelight/inductor`, or unset without a home "
        "folder. `TORCHINDUCTOR_CACHE_DIR` takes precedence. Anyone who can write there can run "
        "code in the service. Empty: torch's default, below `/tmp`.",
    )
    queue_size: int = Field(
        64,
        ge=0,
        description="Maximum number of generations waiting for each device. More are refused with "
        "RESOURCE_EXHAUSTED, or take the places of a caller that has more than its share of them.",
    )
    queue_s: float = Field(
        3600.0,
        gt=0,
        description="Maximum device seconds that the generations waiting for each device need: the "
        "sum of their forecasts, each as if it ran alone. More are refused as by `queue_size`.",
    )
    heartbeat_s: float = Field(
        5.0,
        gt=0,
        description="Seconds without an event after which a waiting caller receives its queue "
        "position again. After a fifth more, any caller receives the latest event again. Keep it "
        "below the idle timeout of proxies.",
    )
    grace_s: float = Field(
        30.0,
        ge=0,
        description="Seconds that running generations have to finish after a signal to stop. A "
        "second signal ends the process at once.",
    )
    step_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Maximum time of one call on the device, in seconds. Beyond it the device "
        "counts as lost and the process exits. The first call of a compiled model takes minutes.",
    )
    torch_threads: int | None = Field(
        None, ge=1, description="Threads for CPU inference. Unset: torch's default."
    )
    reflection: bool = Field(True, description="Enable gRPC server reflection.")
    log_format: Literal["console", "json"] = Field(
        "console", description="Format of the log: one line per event, on standard error."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least important level that is logged."
    )

    @field_validator("listen")
    @classmethod
    def _check_exposure(cls, listen: str, info: ValidationInfo) -> str:
        if not {"tls", "tokens_file", "allow_anonymous"} <= info.data.keys():
            return listen  # one of them is wrong, and reported separately
        tls = info.data["tls"]
        knows_callers = info.data["tokens_file"] is not None or (
            tls is not None and tls.client_authorities is not None
        )
        if not (knows_callers or info.data["allow_anonymous"] or _is_loopback(listen)):
            raise ValueError(
                f"{listen} accepts connections from other machines; set tokens_file or "
                "tls.client_authorities, listen on 127.0.0.1, or set allow_anonymous = true"
            )
        return listen

    @field_validator("fleet")
    @classmethod
    def _check_advertised(
        cls, fleet: FleetSettings | None, info: ValidationInfo
    ) -> FleetSettings | None:
        host = info.data.get("listen", "").rpartition(":")[0].strip("[]")
        if fleet is not None and not fleet.advertise and host in ("0.0.0.0", "::"):
            raise ValueError(
                f"advertise: the other services cannot call {host}; set the HOST:PORT at which "
                "they reach this one"
            )
        return fleet

    @field_validator("recovery")
    @classmethod
    def _check_recovery(
        cls, recovery: RecoverySettings | None, info: ValidationInfo
    ) -> RecoverySettings | None:
        if recovery is not None and recovery.folder is None and info.data.get("fleet") is None:
            raise ValueError("set folder, or fleet.redis_url, for the logs")
        return recovery

    @field_validator("ray")
    @classmethod
    def _check_pools(cls, ray: RaySettings, info: ValidationInfo) -> RaySettings:
        served = [model.name for model in info.data.get("models", ())]
        names = [pool.name for pool in ray.pools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"pools: two pools are named {name!r}")
        placed = [model for pool in ray.pools for model in pool.models or served]
        for model in placed:
            if model not in served:
                raise ValueError(f"pools: {model!r} is not a served model: {', '.join(served)}")
            if placed.count(model) > 1:
                raise ValueError(f"pools: two pools serve the model {model!r}")
        for model in served:
            if model not in placed:
                raise ValueError(f"pools: no pool serves the model {model!r}")
        for pool in ray.pools:
            if pool.max_engines < pool.min_engines:
                raise ValueError(f"pools: {pool.name}: max_engines is less than min_engines")
        return ray

    @field_validator("models")
    @classmethod
    def _check_models(cls, models: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        if not models:
            raise ValueError("must list at least one model")
        names = [model.name for model in models]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"names must be unique, but these repeat: {', '.join(doubled)}")
        return models

    @field_validator("default_model")
    @classmethod
    def _check_default_model(cls, name: str, info: ValidationInfo) -> str:
        names = [model.name for model in info.data.get("models", ())]
        if name and names and name not in names:
            raise ValueError(f"must be one of {', '.join(names)}, not {name!r}")
        return name


def load_settings(
    options: Mapping[str, object] | None = None, config_file: Path | None = None
) -> Settings:
    """Load the settings from the command line (`options`), the environment and the file.

    Raises:
        ConfigurationError: a source cannot be read, or has an unknown key or a bad value.
    """
    return load(Settings, options, config_file, _FOREIGN_VARIABLES)


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
