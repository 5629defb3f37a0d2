"""Gateway floods: what other callers notice while one caller floods the HTTP gateway.

Each flood comes from an address and a process of its own. Meanwhile another caller probes
`/healthz` on new connections, and asks for a cached image with its token.
"""

import argparse
import http.client
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.harness.http_floods import FLOODS, WEAK_TOKEN
from benchmarks.harness.report import write_report
from support.running_service import Usage, forget_peak, run_service

SECONDS = 10.0
HEALTH_EVERY_S, IMAGE_EVERY_S = 0.02, 0.1
TIMEOUT_S, WARM_UP_S = 5.0, 60.0
DESCRIPTORS = 256
"""Soft limit on open files that the gateway starts with."""
MAX_SLOWDOWN, MAX_GROWTH_MIB = 5.0, 64.0
OTHER = "other"
IMAGE = {"inputs": "a red circle", "parameters": {"seed": 7, "num_inference_steps": 2}}
_READY = "Safelight's gateway is ready on "


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway."""

    url: str
    process_id: int
    log: Path


@dataclass(frozen=True, slots=True)
class Figures:
    """Delays and failures of other calls during a flood, and its cost for the gateway."""

    health_p50_ms: float
    health_p99_ms: float
    image_p99_ms: float
    failed: int
    """Calls of others without an answer of 200."""
    calls: int
    growth_mib: float
    log_kib: float


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each flood")
    figures = measure(parser.parse_args().seconds)
    print(
        f"{'flood':<20}{'health p50':>11}{'p99, ms':>9}{'x quiet':>9}{'image p99':>11}"
        f"{'failed':>12}{'MiB':>8}{'log KiB':>9}"
    )
    quiet = figures["quiet"]
    for name, each in figures.items():
        slowdown = each.health_p99_ms / quiet.health_p99_ms
        failed = f"{each.failed}/{each.calls}"
        is_held = slowdown <= MAX_SLOWDOWN and not each.failed and each.growth_mib <= MAX_GROWTH_MIB
        print(
            f"{name:<20}{each.health_p50_ms:>11.1f}{each.health_p99_ms:>9.1f}{slowdown:>9.1f}"
            f"{each.image_p99_ms:>11.1f}{failed:>12}{each.growth_mib:>8.1f}{each.log_kib:>9.1f}"
            f"{'' if is_held else '  missed'}"
        )
    write_report("gateway_floods", {name: asdict(each) for name, each in figures.items()})


def measure(seconds: float) -> dict[str, Figures]:
    """Measure without a flood, then during each."""
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder, "tokens.toml")
        tokens.write_text(
            "".join(
                f'[[tokens]]\nname = "{name}"\nsha256 = "{sha256(name.encode()).hexdigest()}"\n'
                for name in (WEAK_TOKEN, OTHER)
            )
        )
        cache = json.dumps({"enabled": True})
        with run_service(cache=cache, tokens_file=str(tokens)) as service:
            for name in ("quiet", *FLOODS):
                with run_gateway(service.target, Path(folder, f"{name}.log")) as gateway:
                    figures[name] = measure_flood(gateway, name, seconds)
                print(name, figures[name], flush=True)
    return figures


@contextmanager
def run_gateway(target: str, log: Path) -> Iterator[Gateway]:
    """Run a gateway in its own process, with few descriptors and its log in a file."""
    command = [sys.executable, "-m", "safelight_gateway", "--listen", "127.0.0.1:0"]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*command, "--target", target],
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, hard)),
        ) as process,
    ):
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix(_READY).strip()
            yield Gateway(url, process.pid, log)
        finally:
            process.kill()


def measure_flood(gateway: Gateway, name: str, seconds: float) -> Figures:
    """Flood a gateway, and measure what another caller notices."""
    _ask_for_image(gateway.url, WARM_UP_S)
    for _ in range(20):
        _ask_for_image(gateway.url)
    forget_peak(gateway.process_id)
    resident_mib = Usage.read(gateway.process_id).resident_mib
    with _flooded(gateway.url, name):
        health: list[float] = []
        images: list[float] = []
        failures: list[str] = []
        ways = (
            (_ask_for_health, HEALTH_EVERY_S, health),
            (_ask_for_image, IMAGE_EVERY_S, images),
        )
        threads = [
            threading.Thread(target=_repeat, args=(gateway.url, *way, seconds, failures))
            for way in ways
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    cuts = statistics.quantiles(health, n=100, method="inclusive")
    return Figures(
        health_p50_ms=cuts[49],
        health_p99_ms=cuts[98],
        image_p99_ms=statistics.quantiles(images, n=100, method="inclusive")[98],
        failed=len(failures),
        calls=len(health) + len(images),
        growth_mib=Usage.read(gateway.process_id).peak_mib - resident_mib,
        log_kib=gateway.log.stat().st_size / 1024,
    )


@contextmanager
def _flooded(url: str, name: str) -> Iterator[None]:
    """Flood a gateway within the block, from the moment when the flood has begun."""
    if name not in FLOODS:
        yield
        return
    command = [sys.executable, "-m", "benchmarks.harness.http_floods", name, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flood:
        try:
            assert flood.stdout is not None
            assert flood.stdout.readline()
            yield
            assert flood.poll() is None
        finally:
            flood.kill()


def _repeat(
    url: str,
    ask: Callable[[str], None],
    every_s: float,
    times_ms: list[float],
    seconds: float,
    failures: list[str],
) -> None:
    """Call at a fixed rate; note the milliseconds of each call, and failures."""
    begun_at = time.perf_counter()
    for number in range(round(seconds / every_s)):
        time.sleep(max(0.0, begun_at + number * every_s - time.perf_counter()))
        if time.perf_counter() - begun_at > 2 * seconds:
            return
        asked_at = time.perf_counter()
        try:
            ask(url)
        except (OSError, http.client.HTTPException) as error:
            failures.append(repr(error))
        times_ms.append(1e3 * (time.perf_counter() - asked_at))


def _ask_for_health(url: str) -> None:
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)) as connection:
        connection.request("GET", "/healthz")
        _require_success(connection.getresponse())


def _ask_for_image(url: str, timeout_s: float = TIMEOUT_S) -> None:
    with closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)) as connection:
        headers = {"Authorization": f"Bearer {OTHER}"}
        connection.request("POST", "/models/shapes", json.dumps(IMAGE), headers)
        _require_success(connection.getresponse())


def _require_success(response: http.client.HTTPResponse) -> None:
    response.read()
    if response.status != 200:
        raise http.client.HTTPException(f"status {response.status}")


if __name__ == "__main__":
    main()
