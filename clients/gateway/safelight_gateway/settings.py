"""Settings: read once at start, checked there, passed down, never changed.

Sources, strongest first: the command line, `SAFELIGHT_GATEWAY_...` environment variables
(`SAFELIGHT_GATEWAY_TARGET=gpu-1:50051`, `SAFELIGHT_GATEWAY_FILES__KEEP_S=60`), and the TOML
file that `SAFELIGHT_GATEWAY_CONFIG` or `--config` names. A name that does not exist is an error.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from safelight_settings import Address, ConfigPath, ProgramSettings, Table, load


class TlsSettings(Table):
    """Files in PEM to serve HTTPS with."""

    certificate: ConfigPath = Field(
        description="Certificate of the gateway, then its intermediates."
    )
    private_key: ConfigPath = Field(description="Key of the certificate, without a passphrase.")


class TargetTlsSettings(Table):
    """How the connection to the service is encrypted; files in PEM."""

    authorities: ConfigPath | None = Field(
        None, description="Authorities to trust. Unset: those that gRPC brings."
    )
    certificate: ConfigPath | None = Field(
        None, description="Certificate of the gateway, for a service that asks for one."
    )
    private_key: ConfigPath | None = Field(None, description="Key of that certificate.")

    @model_validator(mode="after")
    def _check_pair(self) -> "TargetTlsSettings":
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key must be given together")
        return self


class FileSettings(Table):
    """The images that answers link to instead of holding them."""

    keep_s: float = Field(900.0, gt=0, description="Seconds that a link works.")
    keep_mib: int = Field(
        512, ge=1, description="Memory for them; above it, the oldest link is broken first."
    )


class JobSettings(Table):
    """The requests whose clients come back for the result."""

    keep_s: float = Field(900.0, gt=0, description="Seconds that the result can be asked for.")
    keep_mib: int = Field(
        256, ge=1, description="Memory for results; above it, the oldest one is forgotten first."
    )
    max_count: int = Field(
        1024, ge=1, description="Most of them, running or kept; more are refused (429)."
    )


class Settings(ProgramSettings):
    """All settings of the gateway."""

    model_config = SettingsConfigDict(env_prefix="SAFELIGHT_GATEWAY_")

    listen: Address = Field(
        "127.0.0.1:8080", description="HOST:PORT to serve on; port 0 picks a free one."
    )
    target: str = Field(
        "127.0.0.1:50051", min_length=1, description="gRPC target of the Safelight service."
    )
    tls: TlsSettings | None = Field(None, description="Certificates. Unset: plain HTTP.")
    target_tls: TargetTlsSettings | None = Field(
        None, description="Encryption towards the service; an empty table will do. Unset: none."
    )
    token: SecretStr | None = Field(
        None,
        description="Token of the service with which the gateway asks for the list of models, "
        "where a caller of the model mapping sends none. Never used to generate.",
    )
    root_path: str = Field(
        "", description="Path prefix below which the gateway is seen, such as /images."
    )
    public_url: str = Field(
        "",
        description="URL of the gateway as its callers see it, prefix included, for the links in "
        "answers. Empty: from the request (X-Forwarded-Proto, -Host and -Prefix, or Host).",
    )
    aliases: dict[str, str] = Field(
        {},
        description="Ids that callers use (of the Hub or of a provider), and the served model "
        'that each means; "*" is any other id.',
    )
    max_request_s: float = Field(
        3600.0, gt=0, description="Most seconds that a generation may take; the gRPC deadline."
    )
    max_body_kib: int = Field(1024, ge=1, description="Largest body of a request.")
    files: FileSettings = Field(default_factory=FileSettings)
    jobs: JobSettings = Field(default_factory=JobSettings)
    grace_s: float = Field(
        30.0, ge=0, description="Seconds that running requests get to finish on SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"

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
    """Load the settings from all sources; `options` come from the command line.

    Raises:
        ConfigurationError: a source cannot be read, or gives what is not allowed.
    """
    return load(Settings, options, config_file)
