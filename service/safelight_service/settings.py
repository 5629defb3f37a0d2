"""Settings: read once at start, checked there, passed down, never changed.

Sources, strongest first: the command line, `SAFELIGHT_...` environment
variables (`SAFELIGHT_QUEUE_SIZE=8`; nested ones as JSON), and the TOML file that
`SAFELIGHT_CONFIG` or `--config` names. A name that does not exist is an error.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

EMBEDDED_MODEL = "shapes"
"""Name of the model that ships with the service, and the `source` that means it."""

_ENV_PREFIX = "SAFELIGHT_"
_CLIENT_VARIABLES = frozenset({"SAFELIGHT_TARGET", "SAFELIGHT_TOKEN"})
_CONFIG_VARIABLE = "SAFELIGHT_CONFIG"
_GATEWAY_PREFIX = "SAFELIGHT_GATEWAY_"
"""Of the gateway's own settings."""

_DAY_S = 86_400

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _check_address(listen: str) -> str:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s]+):(\d{1,5})", listen)
    if not match or int(match[2]) > 65535:
        raise ValueError(f"must be HOST:PORT with a port from 0 to 65535, not {listen!r}")
    return listen


def _check_optional_address(listen: str | None) -> str | None:
    return None if listen is None else _check_address(listen)


class ConfigurationError(ValueError):
    """A file that a setting names cannot be used; the message names the setting."""


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _find_home(path: Path | None) -> Path | None:
    return None if path in (None, Path()) else path.expanduser()


_OptionalPath = Annotated[Path | None, AfterValidator(_find_home)]
"""A path below which `~` is the home folder; empty is none."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class LimitSettings(_Table):
    """The most that requests may ask of a model."""

    min_side_px: int = Field(64, ge=8, description="Smallest width and height.")
    max_side_px: int = Field(2048, ge=8, description="Largest width and height.")
    max_pixel_count: int = Field(2048 * 2048, ge=64, description="Largest width times height.")
    max_step_count: int = Field(150, ge=1, description="Most denoising steps.")
    max_guidance_scale: float = Field(50.0, ge=0, description="Highest guidance scale.")
    max_image_count: int = Field(8, ge=1, le=64, description="Most images in one request.")
    max_prompt_character_count: int = Field(
        10_000, ge=1, description="Most characters of a prompt, checked before it is tokenised."
    )

    @model_validator(mode="after")
    def _check_sides(self) -> "LimitSettings":
        if self.min_side_px > self.max_side_px:
            raise ValueError("min_side_px must not be larger than max_side_px")
        return self


class DefaultSettings(_Table):
    """What unset parameters become, where it should not be the pipeline's own default."""

    guidance_scale: float | None = Field(None, ge=0)
    num_inference_steps: int | None = Field(None, ge=1)
    width: int | None = Field(None, ge=8)
    height: int | None = Field(None, ge=8)
    scheduler: str | None = None


class TlsSettings(_Table):
    """Files in PEM; changed ones are used for the next connection."""

    certificate: Path = Field(description="Certificate of the service, then its intermediates.")
    private_key: Path = Field(description="Key of the certificate, without a passphrase.")
    client_authorities: Path | None = Field(
        None,
        description="Authorities, one of which must vouch for each client's certificate. Unset: "
        "clients need none.",
    )


class BatchingSettings(_Table):
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
    profiles_file: _OptionalPath = Field(
        Path("~/.cache/safelight/profiles.json"),
        description="Where measured widths are kept. Empty: nowhere.",
    )


class CacheSettings(_Table):
    """Where finished images are kept for requests that are equal to an earlier one."""

    enabled: bool = Field(True, description="Whether results are kept at all.")
    memory_mib: int = Field(256, ge=0, description="Results kept in memory. 0: none.")
    folder: _OptionalPath = Field(
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


class GenerationSettings(_Table):
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


class ConnectionSettings(_Table):
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


class TelemetrySettings(_Table):
    """What is told of generations beside OTLP, which OpenTelemetry's OTEL_... variables ask for."""

    prometheus_listen: Annotated[str | None, AfterValidator(_check_optional_address)] = Field(
        None,
        description="HOST:PORT of a Prometheus endpoint, without encryption and open to all who "
        "reach it; port 0 picks a free one. Unset: none.",
    )
    step_spans: bool = Field(
        False, description="Whether each step is a span of its own, and not an event of denoise."
    )
    prompts: bool = Field(False, description="Whether the spans of generations hold the prompts.")


class AccelerationSettings(_Table):
    """What makes a model faster or smaller, and what that costs."""

    compile: Literal["off", "regional", "full"] = Field(
        "off",
        description="torch.compile of the denoiser: its repeated blocks, or all of it. Minutes "
        "for the first picture, and seconds for a new width.",
    )
    attention_backend: str | None = Field(
        None, description="Of diffusers, such as native, flash, _flash_3, sage or xformers."
    )
    channels_last: bool = Field(False, description="Memory layout for the convolutions of a UNet.")
    vae_tiling: bool = Field(False, description="Decode large pictures in tiles: slower, smaller.")
    quantization: Literal["none", "int8", "fp8"] = Field(
        "none",
        description="Of the denoiser's linear layers, by torchao: int8 weights, or weights and "
        "activations in 8-bit floats scaled row by row.",
    )
    offload: Literal["none", "model", "group"] = Field(
        "none",
        description="Keep weights in the host's memory until they are needed: whole models, or "
        "groups of layers. Nothing is merged then.",
    )

    @model_validator(mode="after")
    def _check_combination(self) -> "AccelerationSettings":
        for name in ("compile", "quantization"):
            value = getattr(self, name)
            if self.offload != "none" and value not in ("off", "none"):
                raise ValueError(
                    f"offload = {self.offload!r} and {name} = {value!r} cannot be combined: "
                    "offloaded weights move, and the other needs them to stay"
                )
        return self


class ModelSettings(_Table):
    """One model that is served."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,127}$", description="Name in calls.")
    source: str = Field(
        min_length=1,
        description='A folder, a Hub id ("owner/name"), or "shapes" for the embedded model.',
    )
    revision: str = Field("", description="Hub commit; for a folder, a label.")
    allow_unpinned: bool = Field(
        False,
        description="Whether a Hub id may do without a commit, or with a tag or a branch as its "
        "revision. Who can push there then decides what is served.",
    )
    variant: str | None = Field(None, description='Weights variant, such as "fp16".')
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Precision. auto: bfloat16 on a GPU, float32 on a CPU. float16 overflows in "
        "the VAE of some models (SDXL).",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$",
        description="Torch device. auto: cuda where there is one, else cpu.",
    )
    preload: bool = Field(True, description="Load before the service says that it is ready.")
    warm_up: bool = Field(
        True, description="Make a picture of one step after loading, before anybody waits for one."
    )
    acceleration: AccelerationSettings = AccelerationSettings()
    limits: LimitSettings = LimitSettings()
    defaults: DefaultSettings = DefaultSettings()

    @model_validator(mode="before")
    @classmethod
    def _know_the_embedded_model(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("source") == EMBEDDED_MODEL:
            return {"limits": _EMBEDDED_LIMITS, "defaults": _EMBEDDED_DEFAULTS, **values}
        return values

    @property
    def is_on_hub(self) -> bool:
        """Whether the source is a Hub id; a folder of that name comes first."""
        return bool(_HUB_ID.fullmatch(self.source)) and not Path(self.source).is_dir()

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit, or need not be one."""
        return self.allow_unpinned or bool(_COMMIT.fullmatch(self.revision))

    @model_validator(mode="after")
    def _check_pin(self) -> "ModelSettings":
        if self.is_on_hub and not self.is_pinned:
            raise ValueError(
                f"{self.source!r} is no folder, and as a Hub id it must be pinned: set revision to "
                "the commit's 40 hexadecimal digits (under Files, History on the model's page), "
                "or allow_unpinned = true to trust whoever can push to it"
            )
        return self


_EMBEDDED_LIMITS = LimitSettings(max_side_px=512, max_pixel_count=512 * 512)
_EMBEDDED_DEFAULTS = DefaultSettings(num_inference_steps=20, guidance_scale=4.0)


class Settings(BaseSettings):
    """All settings of the service."""

    model_config = SettingsConfigDict(
        env_prefix=_ENV_PREFIX,
        extra="forbid",
        frozen=True,
        validate_default=True,
        hide_input_in_errors=True,  # some settings are secrets
    )

    listen: Annotated[str, AfterValidator(_check_address)] = Field(
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
        description="Memory for the weights of all models; beyond it, the least recently used "
        "model that is idle makes room. Unset: all stay.",
    )
    default_model: str = Field("", description="Model of calls that name none. Empty: the first.")
    batching: BatchingSettings = BatchingSettings()
    generations: GenerationSettings = GenerationSettings()
    connections: ConnectionSettings = ConnectionSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    cache: CacheSettings = CacheSettings()
    queue_size: int = Field(
        64, ge=0, description="Generations that may wait; more are refused (RESOURCE_EXHAUSTED)."
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
