"""Chaos over Ray Serve: kills and freezes engines, a node, fronts, Envoys and Redis.

Two fronts behind two Envoys share Redis and two engines, with the embedded model, on a Ray cluster
of two nodes. Callers make generations one after another, half of them with the cache. None may
fail, each image must have the bytes of an undisturbed one, and none may be made or restarted again
unless a fault met it.
"""

import asyncio
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults.callers import judge, make, make_undisturbed, parse_arguments
from benchmarks.faults.entry import faults_of, open_entry, shared_faults
from benchmarks.faults.fault_loop import Fault, FaultLoop
from benchmarks.harness.report import write_report
from safelight_service.settings import Settings
from support.fleet.ray_cluster import RayCluster, deploy_engines, make_pool, run_ray
from support.fleet.ray_processes import Engines, RayNode
from support.fleet.replica import open_replicas
from support.redis_server import RedisServer, open_redis_server

STEPS = 100
ENGINES = 2
MODES: dict[str, dict[str, Any] | None] = {"without_recovery": None, "with_recovery": {}}
"""The table `recovery` of each run."""


def main() -> None:
    """Measure, print and write."""
    count, seed, is_rehearsal = parse_arguments(__doc__)
    figures = {}
    for name, recovery in MODES.items():
        figures[name] = run(count, seed, recovery)
        print(name, figures[name], flush=True)
    if not is_rehearsal:
        write_report("chaos_ray", figures)
    sys.exit(not all(each["is_intact"] for each in figures.values()))


def run(count: int, seed: int, recovery: dict[str, Any] | None) -> dict[str, Any]:
    """Start a fleet, and make `count` generations among faults."""
    with tempfile.TemporaryDirectory() as folder, open_redis_server() as redis:
        redis.start()
        settings = Settings.model_validate(
            {
                "torch_threads": 1,
                "batching": {"max_width": 1},  # so that the bytes do not depend on what else runs
                "fleet": {"redis_url": redis.url},
                "recovery": recovery,
                "log_format": "json",
            }
        )
        with run_ray(folder=f"{folder}/ray") as address:
            node = RayNode(address)
            node.start()
            try:
                with deploy_engines(address, settings, make_pool(ENGINES)) as cluster:
                    return measure(Path(folder), cluster, node, redis, count, seed)
            finally:
                node.kill()


def measure(
    folder: Path, cluster: RayCluster, node: RayNode, redis: RedisServer, count: int, seed: int
) -> dict[str, Any]:
    """Make `count` generations among faults."""
    engines = Engines(cluster, ENGINES, random.Random(seed))

    def rejoin() -> None:
        node.start()
        engines.wait()

    engine_faults = [
        *[Fault("kill_engine", engines.kill, engines.wait, 0, 0)] * 2,
        *[Fault("freeze_engine", engines.freeze, engines.thaw, 0.5, 12)] * 2,
        Fault("kill_node", node.kill, rejoin, 0, 5),
    ]
    with (
        open_replicas(2, **settings_of_fronts(cluster, redis)) as fronts,
        open_entry(folder, fronts) as (entry, envoys),
    ):
        undisturbed = asyncio.run(make_undisturbed(entry, STEPS))
        front_faults = faults_of("front", fronts) + shared_faults(redis, envoys)
        faults = FaultLoop(seed, engine_faults, front_faults)
        with faults.running():
            made = asyncio.run(make(entry, count, STEPS, faults))
        return judge(made, undisturbed, fronts, faults, read_engine_logs(folder))


def read_engine_logs(folder: Path) -> list[dict[str, Any]]:
    """Return the log lines of all engines, those that have died included."""
    files = folder.glob("ray/session_latest/logs/worker-*.err")
    lines = [line for file in files for line in file.read_text(errors="replace").splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def settings_of_fronts(cluster: RayCluster, redis: RedisServer) -> dict[str, str]:
    """Return the settings of the fronts, as variables."""
    settings = {
        "backend": "ray",
        "ray": cluster.settings.ray.model_dump_json(),
        "fleet": json.dumps({"redis_url": redis.url}),
        "cache": json.dumps({"redis_url": redis.url, "memory_mib": 0}),
        "warnings": "ignore",  # those of Ray
    }
    if cluster.settings.recovery is not None:
        settings["recovery"] = cluster.settings.recovery.model_dump_json()
    return settings


if __name__ == "__main__":
    main()
