"""Ray cluster: a small one on this machine, whose engines run in processes of their own.

Ray is imported in functions only, since it is installed for the tests that need it only.
"""

import os
import signal
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from safelight_service.core.backend import Backend
from safelight_service.core.observer import Observer
from safelight_service.settings import PoolSettings, RaySettings, Settings

MakeEngine = Callable[[Settings, Observer], Backend]


@dataclass(frozen=True)
class RayCluster:
    """A running cluster with a pool of engines."""

    settings: Settings
    """Settings of the fronts and the engines."""
    application: str
    """Name of the application of Serve."""

    @asynccontextmanager
    async def open(self, settings: object = None) -> AsyncIterator[Backend]:
        """Open the backend of a front; its settings are those of the cluster."""
        from safelight_service.app import make_remote_backend

        backend = make_remote_backend(self.settings)
        await backend.start()
        try:
            yield backend
        finally:
            await backend.close()

    def list_processes(self) -> list[tuple[int, int]]:
        """Return the process of each engine, and the number of its running generations."""
        from ray import serve

        handle: Any = serve.get_app_handle(self.application)
        return sorted(handle.broadcast("find_process").results(timeout_s=10))

    def count_engines(self) -> int:
        """Return the number of engines that run."""
        from ray import serve

        deployments = serve.status().applications[self.application].deployments
        return sum(each.replica_states.get("RUNNING", 0) for each in deployments.values())

    def is_busy(self) -> bool:
        """Return whether any engine runs a generation."""
        return any(running for _, running in self.list_processes())

    def update(self, settings: Settings, make_engine: "MakeEngine | None" = None) -> None:
        """Deploy again with other settings, and wait until all engines are replaced."""
        from safelight_service.fleet.ray_serve.deployment import deploy

        ours = {"backend": "ray", "ray": self.settings.ray}
        deploy(settings.model_copy(update=ours), make_engine)

    def kill_busy(self) -> int:
        """Kill the process of an engine that runs a generation, and return its id."""
        process = next(process for process, running in self.list_processes() if running)
        os.kill(process, signal.SIGKILL)
        return process


@contextmanager
def run_ray(environment: Mapping[str, str] | None = None, folder: str = "") -> Iterator[str]:
    """Run Ray, whose processes have further variables; yield its address.

    `folder` is for its files; a temporary one by default.
    """
    import ray
    from ray import serve

    from safelight_service.fleet.ray_serve.connection import NAMESPACE

    with tempfile.TemporaryDirectory(prefix="ray") as temporary:
        options: dict[str, Any] = {
            "num_cpus": 2,
            "include_dashboard": False,
            "log_to_driver": False,
            "configure_logging": False,
            "object_store_memory": 100_000_000,
            "namespace": NAMESPACE,
            "_temp_dir": folder or temporary,
        }
        for name, value in (environment or {}).items():
            os.environ[name] = value
        try:
            ray.init(**options)  # sets variables that further processes need to reach it
        finally:
            for name in environment or {}:
                del os.environ[name]
        try:
            yield ray.get_runtime_context().gcs_address
        finally:
            serve.shutdown()
            ray.shutdown()


@contextmanager
def deploy_engines(
    address: str,
    settings: Settings,
    pool: PoolSettings,
    make_engine: MakeEngine | None = None,
    router: str = "",
) -> Iterator[RayCluster]:
    """Deploy a pool of engines on the Ray at an address; stop the engines at the end.

    `router` names the class of another router than the product's.
    """
    from ray import serve

    from safelight_service.fleet.ray_serve.deployment import ROUTER, application_of, deploy

    ray_settings = RaySettings(
        address=address, application=f"test-{uuid.uuid4().hex[:8]}", pools=(pool,), start_s=60
    )
    settings = settings.model_copy(update={"backend": "ray", "ray": ray_settings})
    name = application_of(ray_settings, pool)
    deploy(settings, make_engine, router or ROUTER)
    try:
        yield RayCluster(settings, name)
    finally:
        serve.delete(name)


@contextmanager
def open_ray_cluster(
    settings: Settings, count: int, make_engine: MakeEngine | None = None
) -> Iterator[RayCluster]:
    """Run Ray and `count` engines; stop them at the end."""
    with (
        run_ray() as address,
        deploy_engines(address, settings, make_pool(count), make_engine) as cluster,
    ):
        yield cluster


def make_pool(count: int) -> PoolSettings:
    """Return the settings of a pool of `count` engines."""
    return PoolSettings(name="engines", min_engines=count, max_engines=count, cpus=0.1)
