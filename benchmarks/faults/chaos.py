"""Chaos: kills and freezes services, Envoy and Redis at random under the ordinary client.

Two services with the embedded model share Redis behind Envoy. Callers make generations one after
another, half of them with the cache. None may fail, each image must have the bytes of an
undisturbed one, and none may be made twice unless a fault met it.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safelight import AsyncClient, SafelightError

from benchmarks.harness.report import write_report
from support.fleet.replica import Replica, open_replicas
from support.redis_server import RedisServer, open_redis_server
from support.running_envoy import Envoy, run_envoy
from support.running_service import prepare_services

PROMPT = "a red circle on a blue background"
SIZE: dict[str, Any] = {"num_inference_steps": 8, "width": 64, "height": 64}
SEEDS = 10
CALLERS = 8
LINGER_S = 60
"""Longer than Envoy takes to notice a frozen service."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--generations", type=int, default=200, help="(default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the faults (default: 0)")
    parser.add_argument("--rehearse", action="store_true", help="12 generations and no file")
    arguments = parser.parse_args()
    count = 12 if arguments.rehearse else arguments.generations
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
            figures = measure(Path(folder), replicas, redis, count, arguments.seed)
    print(figures, flush=True)
    if not arguments.rehearse:
        write_report("chaos", figures)
    sys.exit(not figures["is_intact"])


def measure(
    folder: Path, replicas: list[Replica], redis: RedisServer, count: int, seed: int
) -> dict[str, Any]:
    """Make `count` generations among faults."""
    undisturbed = asyncio.run(make_undisturbed(replicas[0].target))
    with RestartingEnvoy(folder, replicas) as envoy:
        chaos = Chaos(replicas, redis, envoy, random.Random(seed))
        with chaos.running():
            made = asyncio.run(make(envoy.target, count, chaos))
    ended = [line for replica in replicas for line in replica.find_lines("generation_ended")]
    internal = [line for replica in replicas for line in replica.find_lines("internal_error")]
    works = Counter(
        line["generation_id"]
        for line in ended
        if line["state"] == "completed" and line["cache"] != "hit"
    )
    needless = [each.name for each in made if works[each.name] > 1 and not chaos.has_met(each)]
    wrong = [each.name for each in made if each.sha256 != undisturbed[each.seed]]
    return {
        "generations": len(made),
        "lost": [f"{each.name}: {each.error}" for each in made if each.error],
        "wrong_or_lost": len(wrong),
        "made": sum(works.values()),
        "made_twice": sum(works[each.name] > 1 for each in made),
        "made_twice_without_a_fault": needless,
        "internal_errors": internal,
        "faults": dict(chaos.counts),
        "longest_s": round(max(each.ended_at - each.began_at for each in made), 1),
        "is_intact": not wrong and not needless and not internal,
    }


class Made:
    """One generation of a caller."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.seed = seed
        self.began_at = self.ended_at = time.monotonic()
        self.sha256 = ""
        self.error = ""


async def make_undisturbed(target: str) -> list[str]:
    """Return the SHA-256 of the image of each seed."""
    async with AsyncClient(target) as client:
        digests = []
        for seed in range(SEEDS):
            async with client.generate(PROMPT, seed=seed, use_cache=False, **SIZE) as generation:
                digests.append((await generation.images())[0].sha256)
        return digests


async def make(target: str, count: int, chaos: "Chaos") -> list[Made]:
    """Make generations from several callers at once."""
    rng = random.Random(0)
    plans = [Made(f"g{number}", rng.randrange(SEEDS)) for number in range(count)]
    waiting = iter(plans)

    async def call(client: AsyncClient) -> None:
        for each in waiting:
            each.began_at = time.monotonic()
            try:
                async with client.generate(
                    PROMPT,
                    seed=each.seed,
                    generation_id=each.name,
                    use_cache=int(each.name[1:]) % 2 == 0,
                    linger=LINGER_S,
                    **SIZE,
                ) as generation:
                    each.sha256 = (await generation.images())[0].sha256
            except SafelightError as error:
                each.error = f"{type(error).__name__}: {error}"
            each.ended_at = time.monotonic()
            seconds = round(each.ended_at - each.began_at, 1)
            print(each.name, seconds, chaos.latest, each.error, flush=True)

    async with AsyncClient(target) as client:
        await asyncio.gather(*(call(client) for _ in range(CALLERS)))
    return plans


class RestartingEnvoy:
    """Envoy that returns on the same port."""

    def __init__(self, folder: Path, replicas: list[Replica]) -> None:
        self._folder = folder
        self._targets = [replica.target for replica in replicas]
        self._stack = ExitStack()
        self._port = 0
        self.target = ""

    def start(self) -> None:
        """Start it; return when it accepts calls."""
        running = run_envoy(self._folder, *self._targets, port=self._port)
        envoy: Envoy = self._stack.enter_context(running)
        self.target = envoy.address
        self._port = int(envoy.address.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it by SIGKILL."""
        self._stack.close()

    def __enter__(self) -> "RestartingEnvoy":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Chaos:
    """Random faults, one after another; at most one service is gone at any time."""

    def __init__(
        self,
        replicas: list[Replica],
        redis: RedisServer,
        envoy: RestartingEnvoy,
        rng: random.Random,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.latest = ""
        self._replicas, self._redis, self._envoy, self._rng = replicas, redis, envoy, rng
        self._is_over = threading.Event()
        self._times: list[float] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Cause faults until the block ends."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def has_met(self, made: Made) -> bool:
        """Whether a fault began during a generation, or up to a minute before it."""
        return any(made.began_at - 60 < at < made.ended_at for at in self._times)

    def _run(self) -> None:
        faults: list[Callable[[], None]] = [
            self._kill_service,
            self._kill_service,
            self._freeze_service,
            self._kill_redis,
            self._freeze_redis,
            self._kill_envoy,
        ]
        while not self._is_over.wait(self._rng.uniform(2, 8)):
            fault = self._rng.choice(faults)
            self.latest = fault.__name__.strip("_")
            self.counts[self.latest] += 1
            self._times.append(time.monotonic())
            fault()

    def _kill_service(self) -> None:
        replica = self._rng.choice(self._replicas)
        replica.kill()
        self._is_over.wait(self._rng.uniform(0, 1))
        replica.start()

    def _freeze_service(self) -> None:
        replica = self._rng.choice(self._replicas)
        replica.freeze()
        self._is_over.wait(self._rng.uniform(0.5, 8))
        replica.thaw()

    def _kill_redis(self) -> None:
        self._redis.stop()
        self._is_over.wait(self._rng.uniform(0, 2))
        self._redis.start()

    def _freeze_redis(self) -> None:
        self._redis.pause()
        self._is_over.wait(self._rng.uniform(0.1, 3))
        self._redis.resume()

    def _kill_envoy(self) -> None:
        self._envoy.kill()
        self._is_over.wait(self._rng.uniform(0, 1))
        self._envoy.start()


if __name__ == "__main__":
    main()
