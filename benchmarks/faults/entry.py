"""Entry: the Envoys that callers reach, and the faults that all modes have."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.faults.fault_loop import Fault
from support.fleet.replica import Replica
from support.redis_server import RedisServer
from support.running_envoy import Envoy, run_envoy


class RestartingEnvoy:
    """Envoy that returns on the same port."""

    def __init__(self, folder: Path, services: list[Replica]) -> None:
        self._folder = folder
        self._targets = [service.target for service in services]
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


@contextmanager
def open_entry(
    folder: Path, services: list[Replica]
) -> Iterator[tuple[str, list[RestartingEnvoy]]]:
    """Run two Envoys; yield the target of callers, which names both, and the Envoys."""
    envoys = []
    with ExitStack() as stack:
        for name in ("envoy-a", "envoy-b"):
            (folder / name).mkdir()
            envoy = RestartingEnvoy(folder / name, services)
            envoy.start()
            stack.callback(envoy.kill)
            envoys.append(envoy)
        yield "ipv4:" + ",".join(envoy.target for envoy in envoys), envoys


def faults_of(kind: str, services: list[Replica]) -> list[Fault]:
    """Return the faults of services, which are of a kind."""
    kills = [Fault(f"kill_{kind}", each.kill, each.start, 0, 1) for each in services]
    freezes = [Fault(f"freeze_{kind}", each.freeze, each.thaw, 0.5, 8) for each in services]
    return [*kills, *kills, *freezes]


def shared_faults(redis: RedisServer, envoys: Sequence[RestartingEnvoy]) -> list[Fault]:
    """Return the faults of Redis and the Envoys."""
    return [
        *[Fault("kill_redis", redis.stop, redis.start, 0, 2)] * 2,
        *[Fault("freeze_redis", redis.pause, redis.resume, 0.1, 3)] * 2,
        *[Fault("kill_envoy", envoy.kill, envoy.start, 0, 1) for envoy in envoys],
    ]
