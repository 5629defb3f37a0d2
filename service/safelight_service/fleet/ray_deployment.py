"""Ray deployments: the engines of each pool, as an application of Ray Serve.

`safelight-service ray deploy` deploys all pools. A config file of Serve names `build`, with the
arguments `config`, the path of the TOML file, and `pool`, the name of a pool.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from safelight_service.core.backend import BackendStats
from safelight_service.core.errors import DeviceLostError
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.fleet.attempts import Patience
from safelight_service.fleet.engine_host import EngineHost
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.remote_backend import RemoteBackend
from safelight_service.fleet.routing import Loads, Route
from safelight_service.settings import PoolSettings, RaySettings, Settings, load_settings

NAMESPACE = "safelight"

_MAX_ONGOING = 1000
"""Calls of one engine at once; its own queue bounds what it takes."""

_STATS_S = 1.0
_HEALTH_S = 2.0
_DRAIN_POLL_S = 0.5


class EngineReplica:
    """An engine in a replica of Ray Serve. Each call comes with the route that led it here."""

    async def __init__(self, settings: Settings) -> None:  # type: ignore[misc] # as Serve allows
        # Imported here: the front that deploys needs no torch.
        from safelight_service.app import make_engine

        self._engine = make_engine(settings)
        host_id = serve.get_replica_context().replica_id.unique_id
        self._host = EngineHost(self._engine, host_id)
        await self._engine.start()

    async def describe(self, route: Route) -> tuple[ModelInfo, ...]:
        """Describe all models."""
        return self._host.describe()

    async def stats(self) -> BackendStats:
        """Return the present load."""
        return self._host.stats()

    async def find_process(self) -> tuple[int, int]:
        """Return the id of the process, and the number of its running generations."""
        return os.getpid(), self._host.stats().running_count

    async def note(self, run_id: str, is_abandoned: bool, is_joined: bool) -> None:
        """Note the watchers of a run."""
        self._host.note(run_id, is_abandoned=is_abandoned, is_joined=is_joined)

    async def prepare(
        self, route: Route, request: GenerationRequest, left_s: float | None
    ) -> AsyncGenerator[Frame, None]:
        """Resolve a request."""
        async with aclosing(self._host.prepare(request, left_s)) as frames:
            async for frame in frames:
                yield frame

    async def run(self, route: Route, order: RunOrder) -> AsyncGenerator[Frame, None]:
        """Make the images of an order."""
        async with aclosing(self._host.run(order)) as frames:
            async for frame in frames:
                yield frame

    async def record_routing_stats(self) -> Loads:
        """Return the load by lanes, for the routers of all fronts."""
        return self._host.loads()

    async def check_health(self) -> None:
        """Fail once a device is lost, so that Serve replaces the replica.

        Raises:
            DeviceLostError: a device is lost.
        """
        if self._engine.is_lost:
            raise DeviceLostError


def build(arguments: dict[str, str]) -> serve.Application:
    """Build the application of a pool, for a config file of Serve."""
    settings = load_settings({}, Path(arguments["config"]))
    pools = {pool.name: pool for pool in settings.ray.pools}
    return bind(settings, pools[arguments.get("pool", settings.ray.pools[0].name)])


def bind(settings: Settings, pool: PoolSettings) -> serve.Application:
    """Return the application of a pool."""
    scaling: dict[str, Any] = (
        {"num_replicas": pool.min_engines}
        if pool.min_engines == pool.max_engines
        else {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=pool.min_engines,
                max_replicas=pool.max_engines,
                target_ongoing_requests=pool.engine_load,
            )
        }
    )
    actor: dict[str, Any] = {"num_cpus": pool.cpus, "num_gpus": pool.gpus}
    if pool.accelerator_type:
        actor["accelerator_type"] = pool.accelerator_type
    deployment = serve.deployment(EngineReplica).options(
        name=pool.name,
        max_ongoing_requests=_MAX_ONGOING,
        health_check_period_s=_HEALTH_S,
        health_check_timeout_s=settings.ray.silence_s,
        graceful_shutdown_timeout_s=settings.grace_s + _HEALTH_S,
        graceful_shutdown_wait_loop_s=_DRAIN_POLL_S,
        ray_actor_options=actor,
        request_router_config=RequestRouterConfig(
            request_router_class="safelight_service.fleet.ray_router:RayRouter",
            request_routing_stats_period_s=_STATS_S,
        ),
        **scaling,
    )
    return deployment.bind(_settings_of(settings, pool))


def deploy(settings: Settings) -> None:
    """Deploy all pools, and wait until their engines have started."""
    connect(settings.ray)
    serve.start(proxy_location="Disabled")
    for pool in settings.ray.pools:
        name = application_of(settings.ray, pool)
        serve.run(bind(settings, pool), name=name, route_prefix=None)


def connect(settings: RaySettings) -> None:
    """Connect this process to the cluster, unless it is connected."""
    if not ray.is_initialized():
        ray.init(
            address=settings.address,
            namespace=NAMESPACE,
            log_to_driver=False,
            configure_logging=False,
        )


def application_of(settings: RaySettings, pool: PoolSettings) -> str:
    """Return the name of the application of a pool."""
    return f"{settings.application}-{pool.name}"


def make_remote_backend(settings: Settings) -> RemoteBackend:
    """Return the backend of a front, over the deployed pools."""
    from safelight_service.fleet.ray_pool import RayPool

    connect(settings.ray)
    pools = {}
    for pool in settings.ray.pools:
        handle = serve.get_app_handle(application_of(settings.ray, pool))
        ray_pool = RayPool(handle)
        for name in pool.models or [model.name for model in settings.models]:
            pools[name] = ray_pool
    patience = Patience(silence_s=settings.ray.silence_s, attempts=settings.ray.attempts)
    default_model = settings.default_model or settings.models[0].name
    return RemoteBackend(pools, default_model, patience)


def _settings_of(settings: Settings, pool: PoolSettings) -> Settings:
    """Return the settings of a pool's engines, which serve its models only."""
    if not pool.models:
        return settings
    models = tuple(model for model in settings.models if model.name in pool.models)
    default = settings.default_model if settings.default_model in pool.models else ""
    return settings.model_copy(update={"models": models, "default_model": default})
