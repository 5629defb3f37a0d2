"""Settings: read and checked once, at start; immutable afterwards.

Sources, in order of precedence: the command line, `SAFELIGHT_GATEWAY_...` variables
(`SAFELIGHT_GATEWAY_TARGET=gpu-1:50051`, `SAFELIGHT_GATEWAY_FILES__KEEP_S=60`), and the TOML
file that `--config` or `SAFELIGHT_GATEWAY_CONFIG` names. Unknown keys and variables are errors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from safelight_settings import Address, ConfigPath, Network, ProgramSettings, Table, load


class TlsSettings(Table):
    """PEM files for HTTPS."""

    certificate: ConfigPath = Field(
        description="Certificate of the gateway, then its intermediates."
    )
    private_key: ConfigPath = Field(description="Key of the certificate, without a passphrase.")


class TargetTlsSettings(Table):
    """Encryption towards the service; PEM files."""

    authorities: ConfigPath | None = Field(
        None, description="Certificate authorities to trust. Unset: gRPC's built-in ones."
    )
    certificate: ConfigPath | None = Field(
        None, description="The gateway's certificate, for a service that requires one."
    )
    private_key: ConfigPath | None = Field(None, description="Key of that certificate.")

    @model_validator(mode="after")
    def _check_pair(self) -> "TargetTlsSettings":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key must be given together")
        return self


class ConnectionSettings(Table):
    """Limits on connections. An address may take as much as it leaves free for others."""

    max_count: int = Field(
        1000,
        ge=2,
        description="Maximum number of open connections; fewer where the process may open fewer "
        "files. Further ones get 429, unless idle ones can be closed for them.",
    )
    max_per_address: int = Field(
        256,
        ge=1,
        description="Maximum number of open connections from one address. Trusted proxies are "
        "exempt.",
    )
    head_s: float = Field(
        10.0, gt=0, description="Seconds for a TLS handshake, and for the head of a request."
    )
    body_s: float = Field(30.0, gt=0, description="Seconds for the body of a request.")
    idle_s: float = Field(
        75.0,
        gt=0,
        description="Seconds that an idle connection stays open. Keep it above the idle time-out "
        "of proxies, so that none reuses a closed one.",
    )
    stall_s: float = Field(
        60.0,
        gt=0,
        description="Seconds after which a client that reads no more than 64 KiB is disconnected.",
    )
    opened_per_s: float = Field(
        100.0,
        gt=0,
        description="Connections that an address may open in a second, after 20 at once. "
        "Further ones wait. Trusted proxies are exempt.",
    )
    requests_per_s: float = Field(
        200.0,
        gt=0,
        description="Requests that an address may begin in a second, after 20 at once. Further "
        "ones wait; those that would wait for more than 10 seconds get 429.",
    )
    max_bodies_mib: int = Field(
        32, ge=1, description="Memory for request bodies. Beyond it, requests get 429."
    )
    max_unsent_mib: int = Field(
        64,
        ge=1,
        description="Memory for large answers that clients have not read. Beyond it, the oldest "
        "answer of the address with the most is cut off.",
    )


class CallSettings(Table):
    """Limits on concurrent calls to the service. A caller may take as many as it leaves free."""

    max_count: int = Field(
        1000,
        ge=2,
        description="Maximum number of concurrent calls, event streams and queued requests "
        "included. Further ones get 429.",
    )
    max_per_caller: int = Field(
        64,
        ge=1,
        description="Maximum number of concurrent calls of one token, or of one address without a "
        "token. Further ones get 429.",
    )
    events_per_s: float = Field(
        200.0,
        gt=0,
        description="Events that the streams of one caller send in a second, after 20 at once. "
        "Further ones wait; of progress, only the latest is sent then.",
    )
    channels: int = Field(
        4,
        ge=1,
        le=64,
        description="Connections to the service. Each takes its share of `max_count`, which must "
        "stay below the service's `connections.max_stream_count`.",
    )


class FileSettings(Table):
    """Images that responses link to."""

    keep_s: float = Field(900.0, gt=0, description="Lifetime of a link in seconds.")
    keep_mib: int = Field(
        512,
        ge=1,
        description="Memory for images. Beyond it, the oldest of the caller with the most is "
        "dropped.",
    )


class JobSettings(Table):
    """Queued requests, for whose results clients poll."""

    keep_s: float = Field(900.0, gt=0, description="Lifetime of a result in seconds.")
    keep_mib: int = Field(
        256,
        ge=1,
        description="Memory for results. Beyond it, the oldest of the caller with the most is "
        "dropped.",
    )
    max_count: int = Field(
        1024,
        ge=1,
        description="Maximum number of requests, running or kept. Beyond it, the oldest result of "
        "the caller with the most requests is dropped, or the new request refused with 429.",
    )


class VerificationSettings(Table):
    """Limits of `/v1/verify`. Each image is verified in a process of its own."""

    trust_anchors: ConfigPath | None = Field(
        None,
        description="PEM file with certificates, read at start. A manifest is trusted if one of "
        "them vouches for its signer. Needs the extra `provenance`.",
    )
    max_image_kib: int = Field(
        10240,
        ge=1,
        description="Maximum size of an image. Keep it below half of `connections.max_bodies_mib`.",
    )
    max_s: float = Field(
        10.0, gt=0, description="Seconds that a verification may take before it is killed."
    )
    max_memory_mib: int = Field(256, ge=64, description="Memory that a verification may take.")
    max_count: int = Field(
        4,
        ge=1,
        description="Maximum number of concurrent verifications. A caller may take as many as it "
        "leaves free. Further ones get 429.",
    )


class Settings(ProgramSettings):
    """All settings of the gateway."""

    model_config = SettingsConfigDict(env_prefix="SAFELIGHT_GATEWAY_")

    listen: Address = Field(
        "127.0.0.1:8080", description="HOST:PORT to listen on. Port 0 picks a free one."
    )
    target: str = Field(
        "127.0.0.1:50051", min_length=1, description="gRPC target of the Safelight service."
    )
    tls: TlsSettings | None = Field(
        None, description="Certificates, reloaded when they change. Unset: plain HTTP."
    )
    target_tls: TargetTlsSettings | None = Field(
        None, description="Encryption towards the service; may be empty. Unset: none."
    )
    token: SecretStr | None = Field(
        None,
        description="Token for listing the service's models when a caller of the model mapping "
        "sends none. The gateway never generates with it.",
    )
    root_path: str = Field(
        "",
        description="Path prefix in front of the gateway, such as `/images`, whether or not the "
        "proxy strips it. `X-Forwarded-Prefix` of a trusted proxy takes precedence.",
    )
    public_url: str = Field(
        "",
        description="Base URL of links, as callers reach the gateway, prefix included. Empty: from "
        "the request (`Host`, or `X-Forwarded-Proto`, `-Host` and `-Prefix` of a trusted proxy).",
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="Addresses or networks of proxies in front of the gateway, whose "
        "`X-Forwarded-...` headers count. Those of others are ignored.",
    )
    aliases: dict[str, str] = Field(
        {},
        description="Served model for each id that callers use, of the Hub or of a provider. "
        "`*` stands for any other id. A variable takes JSON.",
    )
    adapter_aliases: dict[str, str] = Field(
        {},
        description="Adapter of the served models for each id or URL of a LoRA that callers use. A "
        "variable takes JSON.",
    )
    max_request_s: float = Field(
        3600.0, gt=0, description="Maximum time of a generation in seconds; the gRPC deadline."
    )
    max_body_kib: int = Field(1024, ge=1, description="Maximum size of a request body.")
    connections: ConnectionSettings = Field(default_factory=ConnectionSettings)
    calls: CallSettings = Field(default_factory=CallSettings)
    files: FileSettings = Field(default_factory=FileSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
    verification: VerificationSettings = Field(default_factory=VerificationSettings)
    grace_s: float = Field(
        30.0,
        ge=0,
        description="Seconds that running requests have to finish after a signal to stop.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least important level that is logged."
    )

    @field_validator("target")
    @classmethod
    def _check_target(cls, target: str) -> str:
        if "://" in target and not target.startswith("unix://"):
            scheme = target.partition("://")[0]
            if scheme in ("http", "https", "grpc", "grpcs"):
                raise ValueError(f"must be a gRPC target such as localhost:50051, not {target!r}")
        return target

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and not re.fullmatch(r"(/[\w.~-]+)+", path):
            raise ValueError(f"must be a path such as /images, not {path!r}")
        return path

    @field_validator("public_url")
    @classmethod
    def _check_public_url(cls, url: str) -> str:
        if url and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", url):
            raise ValueError(f"must be an http:// or https:// URL, not {url!r}")
        return url.rstrip("/")


def load_settings(
    options: Mapping[str, object] | None = None, config_file: Path | None = None
) -> Settings:
    """Load the settings from the command line (`options`), the environment and the file.

    Raises:
        ConfigurationError: a source cannot be read, or has an unknown key or a bad value.
    """
    return load(Settings, options, config_file)
