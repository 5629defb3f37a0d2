"""Cuts: breaks the connection between Envoy and the service in mid-stream, repeatedly.

Both Python clients and the gateway's event stream read generations. However often a connection
breaks, the service makes one generation for each request, and the image of an unbroken call.
"""

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from safelight import AsyncClient, Client, Event, Image, Progress

from benchmarks.harness.report import write_report
from support.running_envoy import run_envoy
from support.running_gateway import run_gateway
from support.running_service import RunningService, prepare_services, run_service
from support.tcp_proxy import TcpProxy

PROMPT = "a red circle on a blue background"
SIZE: dict[str, Any] = {"num_inference_steps": 120, "width": 64, "height": 64, "seed": 11}

Seen: TypeAlias = Iterator[tuple[int | None, bytes | None]]
"""Step and image bytes of each event; None where it has none."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=100, help="cuts for each way (default: 100)")
    cuts: int = parser.parse_args().cuts
    prepare_services()
    with (
        tempfile.TemporaryDirectory() as folder,
        run_service() as service,
        TcpProxy(service.target) as proxy,
        run_envoy(Path(folder), proxy.target) as envoy,
        run_gateway(envoy.address) as gateway,
    ):
        with Client(service.target) as client, client.generate(PROMPT, **SIZE) as generation:
            unbroken = generation.images()[0].sha256
        print(f"unbroken: {unbroken}", flush=True)
        ways = {
            "blocking": lambda: read(envoy.address),
            "asyncio": lambda: read_in_asyncio(envoy.address),
            "gateway": lambda: read_from_gateway(gateway.url),
        }
        figures = {
            name: break_often(way, proxy, service, cuts, unbroken) for name, way in ways.items()
        }
    write_report("cuts", figures)
    sys.exit(not all(figure["is_intact"] for figure in figures.values()))


def break_often(
    way: Callable[[], Seen], proxy: TcpProxy, service: RunningService, cuts: int, unbroken: str
) -> dict[str, object]:
    """Read generations, and cut the connection after each step, until there were enough cuts."""
    ended_before = service.read_log().count("generation_ended")
    began_at = time.monotonic()
    cut_count = request_count = 0
    do_steps_rise = True
    images: list[str] = []
    while cut_count < cuts:
        request_count += 1
        last_step = 0
        for step, image in way():
            if step is not None:
                do_steps_rise = do_steps_rise and step > last_step
                last_step = step
                if cut_count < cuts:
                    cut_count += 1
                    proxy.cut()
            if image is not None:
                images.append(hashlib.sha256(image).hexdigest())
    ended_count = service.read_log().count("generation_ended") - ended_before
    figure: dict[str, object] = {
        "cuts": cut_count,
        "requests": request_count,
        "generations": ended_count,
        "same_image": images == [unbroken] * request_count,
        "steps_rise": do_steps_rise,
        "seconds": round(time.monotonic() - began_at, 1),
        "is_intact": (ended_count, images, do_steps_rise)
        == (request_count, [unbroken] * request_count, True),
    }
    print(figure, flush=True)
    return figure


def read(target: str) -> Seen:
    """Read by the blocking client."""
    with Client(target) as client, client.generate(PROMPT, **SIZE) as generation:
        for event in generation:
            yield _seen(event)


def read_in_asyncio(target: str) -> Seen:
    """Read by the asyncio client."""
    with asyncio.Runner() as runner:
        client = AsyncClient(target)
        generation = client.generate(PROMPT, **SIZE)
        runner.run(_enter(generation))
        while (event := runner.run(_next(generation))) is not None:
            yield _seen(event)
        runner.run(client.close())


async def _enter(generation: Any) -> None:
    await generation.__aenter__()


async def _next(generation: Any) -> Event | None:
    event: Event | None = await anext(generation, None)
    return event


def read_from_gateway(url: str) -> Seen:
    """Read the gateway's server-sent events."""
    parameters = {**SIZE, "seed": str(SIZE["seed"])}
    body = json.dumps({"inputs": PROMPT, "parameters": parameters}).encode()
    request = urllib.request.Request(
        f"{url}/v1/generate", body, {"content-type": "application/json"}
    )
    kind = ""
    with urllib.request.urlopen(request) as response:
        for line in response:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = json.loads(value)
                if kind == "failed":
                    raise AssertionError(data)
                image = b64decode(data["data"]) if kind == "image" else None
                yield data["step"] if kind == "progress" else None, image


def _seen(event: Event) -> tuple[int | None, bytes | None]:
    step = event.step if isinstance(event, Progress) else None
    return step, event.data if isinstance(event, Image) else None


if __name__ == "__main__":
    main()
