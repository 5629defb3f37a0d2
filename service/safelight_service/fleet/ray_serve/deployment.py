"""Ray deployments: the engines of each pool, as an application of Ray Serve.

`safelight-service ray deploy` deploys all pools. A config file of Serve names `build`, with the
arguments `config`, the path of the TOML file, and `pool`, the name of a pool.
"""

import logging
import time
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from safelight_service.fleet.attempts import Patience
from safelight_service.fleet.ray_serve.connection import call_ray, connect
from safelight_service.fleet.ray_serve.replica import EngineReplica, MakeEngine
from safelight_service.fleet.remote_backend import RemoteBackend
from safelight_service.settings import PoolSettings, RaySettings, Settings, load_settings

ROUTER = "safelight_service.fleet.ray_serve.router:RayRouter"

_MAX_ONGOING = 1000
"""Calls of one engine at once; its own queue bounds what it takes."""

_STATS_S = 1.0
_HEALTH_S = 2.0
_DRAIN_POLL_S = 0.5
_START_POLL_S = 0.2

_WINDOWS_S = 11.0, 30.0
"""Shortest and longest time over which Serve averages a load, which it measures each 10 s."""


def build(arguments: dict[str, str]) -> serve.Application:
    """Build the application of a pool, for a config file of Serve."""
    settings = load_settings({}, Path(arguments["config"]))
    pools = {pool.name: pool for pool in settings.ray.pools}
    return bind(settings, pools[arguments.get("pool", settings.ray.pools[0].name)])


def bind(
    settings: Settings,
    pool: PoolSettings,
    make_engine: MakeEngine | None = None,
    router: str = ROUTER,
) -> serve.Application:
    """Return the application of a pool.

    `make_engine` replaces the local engine, and `router` names the class of another router.
    """
    scaling: dict[str, Any] = (
        {"num_replicas": pool.min_engines}
        if pool.min_engines == pool.max_engines
        else {
            "autoscaling_config": AutoscalingConfig(
                min_replicas=pool.min_engines,
                max_replicas=pool.max_engines,
                target_ongoing_requests=pool.engine_load,
                downscale_delay_s=pool.idle_s,
                look_back_period_s=min(max(pool.idle_s, _WINDOWS_S[0]), _WINDOWS_S[1]),
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
            request_router_class=router,
            request_routing_stats_period_s=_STATS_S,
        ),
        **scaling,
    )
    return deployment.bind(_settings_of(settings, pool), make_engine)


def deploy(settings: Settings, make_engine: MakeEngine | None = None, router: str = ROUTER) -> None:
    """Deploy all pools, as `bind` describes them, and wait until their engines have started.

    Raises:
        ConnectionError: the cluster does not answer.
        RuntimeError: an engine fails to start, or has not started in time.
    """
    connect(settings.ray)
    call_ray(settings.ray, lambda: serve.start(proxy_location="Disabled"))
    targets = {
        application_of(settings.ray, pool): bind(settings, pool, make_engine, router)
        for pool in settings.ray.pools
    }
    call_ray(
        settings.ray,
        lambda: serve.run_many(
            [serve.RunTarget(target, name, route_prefix=None) for name, target in targets.items()],
            wait_for_ingress_deployment_creation=False,
            wait_for_applications_running=False,
        ),
    )
    give_up_at = time.monotonic() + settings.ray.start_s
    while not all(_is_running(settings.ray, name) for name in targets):
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"the engines have not started within {settings.ray.start_s:g} s")
        time.sleep(_START_POLL_S)


def _is_running(settings: RaySettings, application: str) -> bool:
    """Return whether all engines of an application run in their newest version.

    Raises:
        ConnectionError: the cluster does not answer.
        RuntimeError: an engine fails to start.
    """
    status = call_ray(settings, serve.status).applications.get(application)
    if status is not None and status.status == ApplicationStatus.DEPLOY_FAILED:
        raise RuntimeError(f"{application}: {status.message}")
    return status is not None and status.status == ApplicationStatus.RUNNING


def application_of(settings: RaySettings, pool: PoolSettings) -> str:
    """Return the name of the application of a pool."""
    return f"{settings.application}-{pool.name}"


def make_remote_backend(settings: Settings) -> RemoteBackend:
    """Return the backend of a front, over the deployed pools.

    Raises:
        ConnectionError: the cluster does not answer, or has no engines.
    """
    from safelight_service.fleet.ray_serve.pool import RayPool

    connect(settings.ray)
    _join_logs()
    pools = {}
    for pool in settings.ray.pools:
        handle = _find_handle(settings.ray, application_of(settings.ray, pool))
        ray_pool = RayPool(handle, has_logs=settings.recovery is not None)
        for name in pool.models or [model.name for model in settings.models]:
            pools[name] = ray_pool
    patience = Patience(
        silence_s=settings.ray.silence_s,
        attempts=settings.ray.attempts,
        heartbeat_s=settings.heartbeat_s,
    )
    default_model = settings.default_model or settings.models[0].name
    return RemoteBackend(pools, default_model, patience)


def _join_logs() -> None:
    """Log Serve's warnings as those of other libraries; it has a handler and format of its own."""
    logger = logging.getLogger("ray.serve")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


def _find_handle(settings: RaySettings, application: str) -> DeploymentHandle[Any]:
    """Return the handle of an application.

    Raises:
        ConnectionError: the cluster does not answer, or has no such application.
    """
    try:
        return call_ray(settings, lambda: serve.get_app_handle(application))
    except RayServeException as error:
        raise ConnectionError(f"{application}: {error}") from error


def _settings_of(settings: Settings, pool: PoolSettings) -> Settings:
    """Return the settings of a pool's engines, which serve its models only."""
    if not pool.models:
        return settings
    models = tuple(model for model in settings.models if model.name in pool.models)
    default = settings.default_model if settings.default_model in pool.models else ""
    return settings.model_copy(update={"models": models, "default_model": default})
