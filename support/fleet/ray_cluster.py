"""Ray cluster: a small one on this machine, whose engines run in processes of their own.

Ray is imported in functions only, since it is installed for the tests that need it only.
"""

import os
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from safelight_service.core.backend import Backend
from safelight_service.settings import PoolSettings, RaySettings, Settings

POOL = "engines"


@dataclass(frozen=True)
class RayCluster:
    """A running cluster with a pool of engines."""

    settings: Settings
    """Settings of the fronts and the engines."""

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

        handle: Any = serve.get_app_handle(f"safelight-{POOL}")
        return sorted(handle.broadcast("find_process").results(timeout_s=10))

    def kill_busy(self) -> int:
        """Kill the process of an engine that runs a generation, and return its id."""
        process = next(process for process, running in self.list_processes() if running)
        os.kill(process, signal.SIGKILL)
        return process


@contextmanager
def open_ray_cluster(settings: Settings, count: int) -> Iterator[RayCluster]:
    """Start a cluster and deploy `count` engines; stop it at the end."""
    import ray
    from ray import serve

    from safelight_service.fleet.ray_deployment import NAMESPACE, deploy

    pool = PoolSettings(name=POOL, min_engines=count, max_engines=count, cpus=0.1)
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        options: dict[str, Any] = {
            "num_cpus": 2,
            "include_dashboard": False,
            "log_to_driver": False,
            "configure_logging": False,
            "object_store_memory": 100_000_000,
            "namespace": NAMESPACE,
            "_temp_dir": folder,
        }
        ray.init(**options)
        address = ray.get_runtime_context().gcs_address
        settings = settings.model_copy(
            update={"backend": "ray", "ray": RaySettings(address=address, pools=(pool,))}
        )
        try:
            deploy(settings)
            yield RayCluster(settings)
        finally:
            serve.shutdown()
            ray.shutdown()
