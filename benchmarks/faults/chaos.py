"""Chaos: kills and freezes services, Envoys and Redis at random under the ordinary client.

Two services with the embedded model share Redis behind two Envoys. Callers make generations one
after another, half of them with the cache. None may fail, each image must have the bytes of an
undisturbed one, and none may be made twice unless a fault met it.
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.faults.callers import judge, make, make_undisturbed, parse_arguments
from benchmarks.faults.entry import faults_of, open_entry, shared_faults
from benchmarks.faults.fault_loop import FaultLoop
from benchmarks.harness.report import write_report
from support.fleet.replica import Replica, open_replicas
from support.redis_server import RedisServer, open_redis_server
from support.running_service import prepare_services

STEPS = 8


def main() -> None:
    """Measure, print and write."""
    count, seed, is_rehearsal = parse_arguments(__doc__)
    prepare_services()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_redis_server() as redis,
    ):
        redis.start()
        settings = {
            "fleet": f'{{"redis_url": "{redis.url}"}}',
            "cache": f'{{"redis_url": "{redis.url}", "memory_mib": 0}}',
            "batching": '{"max_width": 1}',  # so that the bytes do not depend on what else runs
        }
        with open_replicas(2, **settings) as replicas:
            figures = measure(Path(folder), replicas, redis, count, seed)
    print(figures, flush=True)
    if not is_rehearsal:
        write_report("chaos", figures)
    sys.exit(not figures["is_intact"])


def measure(
    folder: Path, replicas: list[Replica], redis: RedisServer, count: int, seed: int
) -> dict[str, Any]:
    """Make `count` generations among faults."""
    undisturbed = asyncio.run(make_undisturbed(replicas[0].target, STEPS))
    with open_entry(folder, replicas) as (entry, envoys):
        faults = FaultLoop(seed, faults_of("service", replicas) + shared_faults(redis, envoys))
        with faults.running():
            made = asyncio.run(make(entry, count, STEPS, faults))
    return judge(made, undisturbed, replicas, faults)


if __name__ == "__main__":
    main()
