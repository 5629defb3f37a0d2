"""Settings of the service's parts, one table each."""

from typing import Literal

from pydantic import Field, SecretStr, field_validator

from safelight_settings import Address, ConfigPath, OptionalPath, Table, default_cache

_DAY_S = 86_400


class TlsSettings(Table):
    """PEM files, reloaded for the next connection when they change."""

    certificate: ConfigPath = Field(
        description="The service's certificate, followed by its intermediates."
    )
    private_key: ConfigPath = Field(description="Key of the certificate, without a passphrase.")
    client_authorities: ConfigPath | None = Field(
        None,
        description="Certificate authorities for client certificates. Set: each client must "
        "present a certificate that one of them signed.",
    )


class BatchingSettings(Table):
    """How concurrent generations share forward passes of the denoiser."""

    max_width: int | None = Field(
        None,
        ge=1,
        description="Maximum number of images in one forward. 1 disables batching. Unset: as many "
        "as measurements justify.",
    )
    deterministic: bool = Field(
        False,
        description="Give equal requests equal bytes, whatever else runs. Disables batching.",
    )
    order: Literal["shortest_remaining", "first_come"] = Field(
        "shortest_remaining",
        description="Scheduling policy among the generations of one caller, when the device cannot "
        "run all at once. shortest_remaining: most end soon, long ones later. first_come: by "
        "arrival, in forwards as wide as possible.",
    )
    prompt_cache_mib: int = Field(
        256,
        ge=0,
        description="Memory for the embeddings of recent prompts, for each model. Tokens share "
        "them as they share results: within a `cache_group`.",
    )
    profiles_file: OptionalPath = Field(
        default_factory=default_cache("profiles.json"),
        description="File that stores measured widths. `digests.json` beside it stores the SHA-256 "
        "of model files, and `step_reuse.json` the results of `safelight-service calibrate`. "
        "Default: `~/.cache/safelight/profiles.json`, or unset without a home folder. Empty: "
        "measure and read again after each start.",
    )


def check_redis_url(url: SecretStr) -> SecretStr:
    """Return the URL of a Redis server.

    Raises:
        ValueError: it has another scheme.
    """
    schemes = ("redis://", "rediss://", "unix://")
    if not url.get_secret_value().startswith(schemes):
        raise ValueError(f"must begin with {', '.join(schemes)}")
    return url


class CacheSettings(Table):
    """Where results are kept, to answer equal requests later."""

    enabled: bool = Field(True, description="Keep results.")
    memory_mib: int = Field(
        256, ge=0, description="Memory for results. 0 disables the memory tier."
    )
    folder: OptionalPath = Field(
        None,
        description="Folder for results, which survive a restart. Replicas on one host may share "
        "it, on a local file system and as one user. Unset or empty: no disk tier.",
    )
    disk_mib: int = Field(4096, ge=1, description="Disk space for results in the folder.")
    redis_url: SecretStr | None = Field(
        None,
        description="`redis://`, `rediss://` or `unix://` URL of a Redis server that replicas "
        "share. It may contain a password; no log line or error shows it. Unset: no Redis tier.",
    )
    redis_ttl_s: int = Field(86_400, ge=1, description="Seconds that Redis keeps a result.")
    replay_unseeded: bool = Field(
        False,
        description="Answer a request without a seed with the result of an earlier one without a "
        "seed. Otherwise each gets a new image.",
    )

    @field_validator("redis_url", mode="after")
    @classmethod
    def _check_scheme(cls, url: SecretStr | None) -> SecretStr | None:
        return None if url is None else check_redis_url(url)


class GenerationSettings(Table):
    """How long a generation runs, and how long callers can return to it."""

    max_s: float = Field(
        3600.0, gt=0, description="Maximum time of a generation in seconds, including its wait."
    )
    keep_s: float = Field(
        60.0,
        ge=0,
        description="Seconds for which callers can watch a finished generation by its id.",
    )
    keep_mib: int = Field(
        256,
        ge=0,
        description="Memory for finished generations. Beyond it, the oldest of the caller that "
        "exceeds its share most is dropped.",
    )
    max_linger_s: float = Field(
        3600.0,
        ge=0,
        le=3600,
        description="Maximum `linger` of a request in seconds; longer ones are refused. The Python "
        "client asks for 10 seconds.",
    )
    max_lingering: int = Field(
        64,
        ge=0,
        description="Maximum number of generations of a caller that run without watchers. Beyond "
        "it, the one that was left first ends.",
    )
    max_watches: int = Field(
        128,
        ge=0,
        description="Maximum number of concurrent calls of a caller that replay ended generations, "
        "or watch generations that are being watched already. More are refused with "
        "RESOURCE_EXHAUSTED.",
    )
    stall_s: float = Field(
        60.0,
        gt=0,
        description="Seconds after which a caller that reads nothing from its stream is "
        "disconnected.",
    )


class ConnectionSettings(Table):
    """Limits on connections and on the calls of each caller."""

    max_count: int = Field(
        4000,
        ge=1,
        description="Maximum number of open connections. Further ones are closed on arrival, and "
        "their clients see UNAVAILABLE. Each takes a file descriptor, and 256 descriptors stay "
        "free for files: with fewer, the service warns and allows fewer connections.",
    )
    max_calls_per_caller: int = Field(
        1000,
        ge=1,
        description="Maximum number of concurrent calls of one token, or of one address where "
        "calls need no token. Further ones are refused with RESOURCE_EXHAUSTED. Calls of "
        "`Health/Check` count apart; of `Health/Watch`, a caller may have a fiftieth.",
    )
    request_s: float = Field(
        30.0,
        gt=0,
        le=_DAY_S,
        description="Seconds that the request of a call has to arrive. Then the call ends with "
        "DEADLINE_EXCEEDED.",
    )
    handshake_s: float = Field(
        10.0,
        gt=0,
        le=_DAY_S,
        description="Seconds that a new connection has for TLS and the first frames of HTTP/2. "
        "Then it is closed.",
    )
    idle_s: float = Field(
        300.0,
        gt=0,
        le=_DAY_S,
        description="Seconds without a call after which a connection is closed. gRPC clients "
        "reconnect at their next call.",
    )
    max_stream_count: int = Field(
        500,
        ge=1,
        description="Maximum number of concurrent calls on one connection, including abandoned "
        "calls until the service notices. Clients queue further calls silently. The HTTP gateway "
        "spreads its callers over `calls.channels` connections. gRPC drops calls of any connection "
        "once 3,000 of a method wait for the service, so keep this limit below that.",
    )
    max_age_s: float | None = Field(
        None,
        gt=0,
        le=_DAY_S,
        description="Seconds, give or take a tenth, after which the service asks clients to "
        "reconnect, so that load balancers find new replicas. Running calls continue. Unset: "
        "never.",
    )
    keepalive_s: float = Field(
        30.0,
        gt=0,
        le=_DAY_S,
        description="Seconds without traffic after which the service pings a client.",
    )
    keepalive_timeout_s: float = Field(
        10.0,
        gt=0,
        le=_DAY_S,
        description="Seconds to wait for the answer to a ping before closing the connection.",
    )


class TelemetrySettings(Table):
    """Telemetry besides OTLP, which OpenTelemetry's OTEL_... variables configure."""

    prometheus_listen: Address | None = Field(
        None,
        description="HOST:PORT of a Prometheus endpoint, unencrypted and open to everyone who can "
        "reach it. Port 0 picks a free one; the log shows it. Unset: none.",
    )
    step_spans: bool = Field(
        False, description="Record each step as a span, not as an event of the span `denoise`."
    )
    prompts: bool = Field(False, description="Record prompts in spans.")
