"""Settings of fleets: services that know each other, and engines on a Ray cluster."""

from pydantic import Field, SecretStr, field_validator

from safelight_service.settings.parts import check_redis_url
from safelight_settings import Address, ConfigPath, Table


class FleetSettings(Table):
    """Services that answer calls about each other's generations."""

    redis_url: SecretStr = Field(
        description="`redis://`, `rediss://` or `unix://` URL of the Redis server that the fleet "
        "shares. It may contain a password; no log line or error shows it."
    )
    advertise: str = Field(
        "",
        description="HOST:PORT at which the other services reach this one. Empty: the address "
        "that it listens on.",
    )
    lease_s: float = Field(
        15.0,
        ge=1,
        le=300,
        description="Seconds after which another service may take over the generations of one "
        "that has died.",
    )
    authorities: ConfigPath | None = Field(
        None,
        description="PEM file of the authorities that signed the other services' certificates. "
        "Unset: those of the system. Used with `tls` only.",
    )
    server_name: str = Field(
        "",
        description="Name in the certificates of the other services. Empty: the host of their "
        "addresses. Used with `tls` only.",
    )

    @field_validator("redis_url", mode="after")
    @classmethod
    def _check_scheme(cls, url: SecretStr) -> SecretStr:
        return check_redis_url(url)


class RecoverySettings(Table):
    """Logs of denoising, from which another engine, or the next process, continues a generation."""

    folder: ConfigPath | None = Field(
        None,
        description="Folder for the logs, shared by all engines that may continue a generation. "
        "Unset: the Redis server of `fleet.redis_url`.",
    )
    max_mib: int = Field(
        1024,
        ge=1,
        description="Maximum size of the logs of an engine's running generations together, in MiB; "
        "a folder never holds more. Images beyond it are not logged.",
    )
    max_generation_mib: int = Field(
        128,
        ge=1,
        description="Maximum size of the logs of one generation, in MiB. Later steps are not "
        "logged.",
    )
    ttl_s: int = Field(
        600,
        ge=1,
        description="Seconds that the log of an interrupted generation is kept after its last "
        "step.",
    )


class PoolSettings(Table):
    """Engines that serve the same models, as one deployment of Ray Serve."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$", description="Name of the deployment."
    )
    models: tuple[str, ...] = Field(
        (), description="Names of the models that its engines serve. Empty: all."
    )
    min_engines: int = Field(
        1, ge=0, description="Engines without load. 0: the first request starts one."
    )
    max_engines: int = Field(1, ge=1, description="Engines under load.")
    engine_load: float = Field(
        8.0, gt=0, description="Generations of an engine, beyond which Serve starts another."
    )
    idle_s: float = Field(
        600.0, ge=0, description="Seconds of less load after which Serve stops an engine."
    )
    cpus: float = Field(1.0, ge=0, description="CPUs that Ray reserves for each engine.")
    gpus: float = Field(0.0, ge=0, description="GPUs that Ray reserves for each engine.")
    accelerator_type: str = Field(
        "", description="Ray's name of the GPU, such as `H100`. Empty: any."
    )


class RaySettings(Table):
    """Engines on a Ray cluster, for `safelight-service ray deploy` and `backend = "ray"`."""

    address: str = Field(
        "auto", description="Address of the cluster; `auto` finds the one of this machine."
    )
    application: str = Field(
        "safelight",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$",
        description="Prefix of the names of the Serve applications.",
    )
    connect_s: float = Field(
        60.0,
        gt=0,
        description="Seconds that `ray deploy` and a front that starts wait for each answer of the "
        "cluster.",
    )
    pools: tuple[PoolSettings, ...] = Field(
        (PoolSettings(name="engines"),),
        min_length=1,
        description="Pools of engines. Unset: one pool of one engine that serves all models.",
    )
    start_s: float = Field(
        1800.0,
        gt=0,
        description="Seconds that `ray deploy` waits for the engines to load their models.",
    )
    prometheus_listen: Address | None = Field(
        None,
        description="HOST:PORT of a Prometheus endpoint at each engine, beside "
        "`telemetry.prometheus_listen` of the fronts. Where another engine of the machine has "
        "taken the port, the next free one of 32. Unset: none.",
    )
    silence_s: float = Field(
        5.0,
        gt=1,
        description="Seconds without a sign of life after which an engine counts as lost. Engines "
        "give one each second.",
    )
    attempts: int = Field(
        5,
        ge=1,
        description="Engines that a generation tries, one after another, if they are lost. Those "
        "in whose queue it waits then count a third.",
    )
