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

from safelight_settings import Address, ConfigPath, ProgramSettings, Table, load


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


class FileSettings(Table):
    """Images that responses link to."""

    keep_s: float = Field(900.0, gt=0, description="Lifetime of a link in seconds.")
    keep_mib: int = Field(
        512, ge=1, description="Memory for images. Beyond it, the oldest is dropped."
    )


class JobSettings(Table):
    """Queued requests, for whose results clients poll."""

    keep_s: float = Field(900.0, gt=0, description="Lifetime of a result in seconds.")
    keep_mib: int = Field(
        256, ge=1, description="Memory for results. Beyond it, the oldest is dropped."
    )
    max_count: int = Field(
        1024,
        ge=1,
        description="Maximum number of requests, running or kept. More are refused with 429.",
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
        "proxy strips it. `X-Forwarded-Prefix` takes precedence.",
    )
    public_url: str = Field(
        "",
        description="Base URL of links, as callers reach the gateway, prefix included. Empty: from "
        "the request (`X-Forwarded-Proto`, `-Host` and `-Prefix`, or `Host`).",
    )
    aliases: dict[str, str] = Field(
        {},
        description="Served model for each id that callers use, of the Hub or of a provider. "
        "`*` stands for any other id. A variable takes JSON.",
    )
    max_request_s: float = Field(
        3600.0, gt=0, description="Maximum time of a generation in seconds; the gRPC deadline."
    )
    max_body_kib: int = Field(1024, ge=1, description="Maximum size of a request body.")
    files: FileSettings = Field(default_factory=FileSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
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
