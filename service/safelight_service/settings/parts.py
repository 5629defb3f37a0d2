"""Settings of the parts of the service."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from safelight_settings import Address, ConfigPath, OptionalPath, Table

_DAY_S = 86_400


class TlsSettings(Table):
    """Files in PEM; changed ones are used for the next connection."""

    certificate: ConfigPath = Field(
        description="Certificate of the service, then its intermediates."
    )
    private_key: ConfigPath = Field(description="Key of the certificate, without a passphrase.")
    client_authorities: ConfigPath | None = Field(
        None,
        description="Authorities, one of which must vouch for each client's certificate. Unset: "
        "clients need none.",
    )


class BatchingSettings(Table):
    """How concurrent generations share forwards of the denoiser."""

    max_width: int | None = Field(
        None,
        ge=1,
        description="Most images that share a forward; 1: none do. Unset: as wide as "
        "measurements show to pay.",
    )
    deterministic: bool = Field(
        False,
        description="Whether equal requests must give equal bytes whatever runs beside them. "
        "Nothing is merged then.",
    )
    order: Literal["first_come", "shortest_remaining"] = Field(
        "first_come",
        description="Who comes first when the device cannot serve all at once. "
        "shortest_remaining: lower mean latency, longer tail.",
    )
    prompt_cache_mib: int = Field(
        256, ge=0, description="Memory for the embeddings of recent prompts, for each model."
    )
    profiles_file: OptionalPath = Field(
        Path("~/.cache/safelight/profiles.json"),
        description="Where measured widths are kept. Empty: nowhere.",
    )


class CacheSettings(Table):
    """Where finished images are kept for requests that are equal to an earlier one."""

    enabled: bool = Field(True, description="Whether results are kept at all.")
    memory_mib: int = Field(256, ge=0, description="Results kept in memory. 0: none.")
    folder: OptionalPath = Field(
        None,
        description="Where results outlive the process; replicas on one host may share it. "
        "Unset or empty: nowhere.",
    )
    disk_mib: int = Field(4096, ge=1, description="Results kept in the folder.")
    redis_url: SecretStr | None = Field(
        None,
        description="redis://, rediss:// or unix:// URL of a server that replicas share. "
        "Unset: none.",
    )
    redis_ttl_s: int = Field(86_400, ge=1, description="How long Redis keeps a result.")
    replay_unseeded: bool = Field(
        False,
        description="Whether a request without a seed gets the result of an earlier one without "
        "a seed. Otherwise requests without a seed get a new picture each time.",
    )

    @field_validator("redis_url", mode="after")
    @classmethod
    def _check_scheme(cls, url: SecretStr | None) -> SecretStr | None:
        schemes = ("redis://", "rediss://", "unix://")
        if url is not None and not url.get_secret_value().startswith(schemes):
            raise ValueError(f"must begin with {', '.join(schemes)}")
        return url


class GenerationSettings(Table):
    """How long a generation may take, and how long it is kept."""

    max_s: float = Field(
        3600.0, gt=0, description="Most seconds that a generation may take, its wait included."
    )
    keep_s: float = Field(
        60.0, ge=0, description="Seconds that one that has ended can still be watched by its id."
    )
    keep_mib: int = Field(
        256, ge=0, description="Memory for those; above it, the one that ended first is forgotten."
    )
    stall_s: float = Field(
        60.0,
        gt=0,
        description="Seconds after which a reader that takes nothing from its stream is cut off.",
    )


class ConnectionSettings(Table):
    """How many connections there may be, and how long."""

    max_count: int = Field(
        1000, ge=1, description="Most connections at once; more are closed as they come."
    )
    max_stream_count: int = Field(
        500,
        ge=1,
        description="Most calls of a connection at once, abandoned ones included until they are "
        "noticed. Clients hold back more until some have ended. gRPC starts to drop calls, "
        "whoever's, at 1000 that nobody has looked at yet; a connection should not get there.",
    )
    max_age_s: float | None = Field(
        None,
        gt=0,
        le=_DAY_S,
        description="Seconds after which clients are told to connect anew, as load balancers need "
        "it to find new replicas. Calls in progress go on. Unset: never.",
    )
    keepalive_s: float = Field(
        30.0,
        gt=0,
        le=_DAY_S,
        description="Seconds of silence after which a client is asked for a sign of life.",
    )
    keepalive_timeout_s: float = Field(
        10.0,
        gt=0,
        le=_DAY_S,
        description="Seconds that it has to give one before its connection is closed.",
    )


class TelemetrySettings(Table):
    """What is told of generations beside OTLP, which OpenTelemetry's OTEL_... variables ask for."""

    prometheus_listen: Address | None = Field(
        None,
        description="HOST:PORT of a Prometheus endpoint, without encryption and open to all who "
        "reach it; port 0 picks a free one. Unset: none.",
    )
    step_spans: bool = Field(
        False, description="Whether each step is a span of its own, and not an event of denoise."
    )
    prompts: bool = Field(False, description="Whether the spans of generations hold the prompts.")
