"""Gateway: the delay it adds to a cached image, and many event streams at once."""

import asyncio
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from urllib.parse import urlsplit

from safelight import Client

from benchmarks.harness.report import Percentiles, write_report
from support.running_service import run_service

ROUNDS = 500
STREAMS = 200
STREAM_STEPS = 4
PROMPT = "a red circle on a blue background"
PARAMETERS = {"seed": 7, "num_inference_steps": 2}
_READY = "Safelight's gateway is ready on "


def main() -> None:
    """Measure, print and save."""
    cache = json.dumps({"enabled": True})
    with (
        run_service(cache=cache, queue_size=str(STREAMS), batching='{"max_width": 32}') as service,
        run_gateway(service.target) as url,
    ):
        cached = measure_cached_image(service.target, url)
        for name, figure in cached.items():
            print(f"{name:<28}{figure.p50:>8.2f} ms p50{figure.p99:>8.2f} ms p99")
        added_ms = cached["through the gateway"].p50 - cached["over gRPC"].p50
        print(f"{'added':<28}{added_ms:>8.2f} ms p50")
        seconds = asyncio.run(watch_all(url))
        print(f"{STREAMS} event streams at once: all completed in {seconds:.1f} s")
    write_report(
        "gateway",
        {
            "cached image, ms": {name: asdict(figure) for name, figure in cached.items()},
            "added, ms": added_ms,
            "event streams": {"count": STREAMS, "seconds": seconds},
        },
    )


@contextmanager
def run_gateway(target: str) -> Iterator[str]:
    """Run a gateway in its own process; yield its URL."""
    command = [sys.executable, "-m", "safelight_gateway", "--listen", "127.0.0.1:0"]
    limits = {"SAFELIGHT_GATEWAY_CALLS__MAX_PER_CALLER": str(2 * STREAMS)}
    with subprocess.Popen(
        [*command, "--target", target],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **limits},
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix(_READY).strip()
        finally:
            process.terminate()


def measure_cached_image(target: str, url: str) -> dict[str, Percentiles]:
    """Time one cached image over gRPC and through the gateway, in turns; in milliseconds."""
    body = json.dumps({"inputs": PROMPT, "parameters": PARAMETERS})
    host = urlsplit(url).netloc
    with Client(target) as client, closing(http.client.HTTPConnection(host)) as connection:

        def over_grpc() -> bytes:
            with client.generate(PROMPT, seed=7, num_inference_steps=2) as generation:
                return generation.images()[0].data

        def over_http() -> bytes:
            connection.request("POST", "/models/shapes", body)
            return connection.getresponse().read()

        assert over_grpc() == over_http()
        ways = {"over gRPC": over_grpc, "through the gateway": over_http}
        times_ms: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                begun_at = time.perf_counter()
                way()
                times_ms[name].append(1e3 * (time.perf_counter() - begun_at))
    return {name: Percentiles.of(times) for name, times in times_ms.items()}


async def watch_all(url: str) -> float:
    """Watch many generations at once, each to its end; return the seconds taken."""
    begun_at = time.perf_counter()
    ends = await asyncio.gather(*(watch(url, seed) for seed in range(STREAMS)))
    assert all(end == "event: completed" for end in ends), ends
    return time.perf_counter() - begun_at


async def watch(url: str, seed: int) -> str:
    """Watch a generation to its end; return the name of its last event."""
    address = urlsplit(url)
    size = {"width": 64, "height": 64, "num_inference_steps": STREAM_STEPS}
    body = json.dumps({"inputs": PROMPT, "parameters": {**size, "seed": seed}}).encode()
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=2**20)
    head = f"POST /v1/generate HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    last = ""
    while line := await reader.readline():
        if line.startswith(b"event:"):
            last = line.decode().strip()
    writer.close()
    await writer.wait_closed()
    return last


if __name__ == "__main__":
    main()
