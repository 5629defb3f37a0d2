"""Others: well-behaved callers, and how they fare meanwhile.

`python -m benchmarks.floods.others HOST:PORT SECONDS TOKEN` connects, says so, waits for a line,
calls for some seconds, and prints the report as JSON.
"""

import json
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

CHECK_EVERY_S = 0.02
NEWCOMER_EVERY_S = 0.1
GENERATE_EVERY_S = 0.1
CHECK_TIMEOUT_S = 10.0
GENERATE_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Calls:
    """Calls of one kind: milliseconds of those that succeeded, statuses of the others."""

    taken_ms: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    def make(self, call: Callable[[], object]) -> None:
        """Make a call and note its time or its status."""
        begun_at = time.perf_counter()
        try:
            call()
        except grpc.RpcError as error:
            self.failures[error.code().name] += 1
        else:
            self.taken_ms.append((time.perf_counter() - begun_at) * 1000)

    def repeat(self, seconds: float, interval_s: float, call: Callable[[], object]) -> None:
        """Make calls one after the other for a time."""
        ends_at = time.monotonic() + seconds
        while (now := time.monotonic()) < ends_at:
            self.make(call)
            time.sleep(max(0.0, now + interval_s - time.monotonic()))

    def summarise(self) -> dict[str, object]:
        """Return counts, the median and the 99th percentile."""
        count = len(self.taken_ms)
        cuts = statistics.quantiles(self.taken_ms, n=100, method="inclusive") if count > 1 else []
        return {
            "count": count,
            "failed": dict(self.failures),
            "p50_ms": cuts[49] if cuts else None,
            "p99_ms": cuts[98] if cuts else None,
        }


class Others:
    """Callers with their own connections: a health probe, a token's holder, and newcomers."""

    def __init__(self, target: str, token: str) -> None:
        self._target = target
        self._metadata = (("authorization", f"Bearer {token}"), ("x-use-cache", "false"))
        self._probe = grpc.insecure_channel(target, _OWN_CONNECTION)
        self._holder = grpc.insecure_channel(target, _OWN_CONNECTION)
        self._seed = 0
        self._check(self._probe)
        self._check(self._holder)

    def run(self, seconds: float) -> dict[str, dict[str, object]]:
        """Call for a time; return the summaries by kind."""
        ways = {
            "check": (CHECK_EVERY_S, lambda: self._check(self._probe)),
            "generate": (GENERATE_EVERY_S, self._generate),
            "newcomer": (NEWCOMER_EVERY_S, self._arrive),
        }
        calls = {name: Calls() for name in ways}
        threads = [
            threading.Thread(target=calls[name].repeat, args=[seconds, *way])
            for name, way in ways.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {name: each.summarise() for name, each in calls.items()}

    def _check(self, channel: grpc.Channel) -> None:
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest(), timeout=CHECK_TIMEOUT_S)

    def _arrive(self) -> None:
        with grpc.insecure_channel(self._target, _OWN_CONNECTION) as channel:
            self._check(channel)

    def _generate(self) -> None:
        self._seed += 1
        parameters = pb.TextToImageParameters(
            num_inference_steps=2, width=64, height=64, seed=self._seed
        )
        request = pb.GenerateRequest(inputs="a red circle", parameters=parameters)
        stub = pb_grpc.TextToImageServiceStub(self._holder)
        list(stub.Generate(request, timeout=GENERATE_TIMEOUT_S, metadata=self._metadata))


_OWN_CONNECTION = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)


if __name__ == "__main__":
    _target, _seconds, _token = sys.argv[1:]
    _others = Others(_target, _token)
    print("connected", flush=True)
    sys.stdin.readline()
    json.dump(_others.run(float(_seconds)), sys.stdout)
