"""Processes: fronts and local services of their own, as operators start them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from support.fleet.ray_cluster import RayCluster


@dataclass(frozen=True, slots=True)
class Process:
    """A running service."""

    address: str
    process_id: int


@contextmanager
def run_front(cluster: RayCluster, redis_url: str = "") -> Iterator[Process]:
    """Run a front of a cluster; with a Redis server, it knows the generations of the others."""
    settings = cluster.settings
    models = [model.model_dump(mode="json", exclude_unset=True) for model in settings.models]
    variables = {
        "SAFELIGHT_LISTEN": "127.0.0.1:0",
        "SAFELIGHT_BACKEND": "ray",
        "SAFELIGHT_RAY": settings.ray.model_dump_json(),
        "SAFELIGHT_MODELS": json.dumps(models),
        "SAFELIGHT_LOG_LEVEL": "error",
        "SAFELIGHT_GRACE_S": "0",
    }
    if redis_url:
        variables["SAFELIGHT_FLEET__REDIS_URL"] = redis_url
    with _run(["safelight_service"], variables) as process:
        yield process


@contextmanager
def run_sleeping_service(step_s: float, width: int) -> Iterator[Process]:
    """Run a service with a local sleeping engine."""
    with _run(["support.fleet.sleeping_service", str(step_s), str(width)], {}) as process:
        yield process


@contextmanager
def _run(module: Sequence[str], variables: Mapping[str, str]) -> Iterator[Process]:
    command = [sys.executable, "-m", *module]
    environment = os.environ | variables
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("a service has not started; its error is above")
            yield Process(line.split()[-1], process.pid)
        finally:
            process.kill()
