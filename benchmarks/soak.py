"""Soak: clients that read, cancel, vanish and come back for a given time.

Afterwards the service must be as before: no abandoned generation still runs, no thread or
descriptor has leaked, and memory has never grown by 64 MiB.
"""

import argparse
import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from benchmarks.harness.report import write_report
from support.running_service import run_service
from support.unharmed import unharmed

CLIENTS = 16
LINGER_S = 2
WARM_UP_S = 20.0
"""Long enough for the allocators to meet every image size at every width."""


async def read_to_the_end(generate: Any, rng: random.Random) -> None:
    """Read a generation to its end."""
    await _read(generate(_draw(rng)))


async def cancel(generate: Any, rng: random.Random) -> None:
    """Cancel after some events."""
    call = generate(_draw(rng))
    await _read(call, rng.randrange(6))
    call.cancel()


async def vanish(generate: Any, rng: random.Random) -> None:
    """Stop reading after some events, and leave the connection to be closed."""
    await _read(generate(_draw(rng)), rng.randrange(6))


async def be_in_a_hurry(generate: Any, rng: random.Random) -> None:
    """Set a deadline that may pass at any point."""
    await _read(generate(_draw(rng), timeout=rng.uniform(0.01, 2)))


async def come_back(generate: Any, rng: random.Random) -> None:
    """Leave a lingering generation, and usually join it again."""
    request = _draw(rng)
    request.generation_id = uuid.uuid4().hex
    request.linger.CopyFrom(Duration(seconds=LINGER_S))
    call = generate(request)
    await _read(call, 1 + rng.randrange(3))
    call.cancel()
    if rng.random() < 0.7:
        await _read(generate(request))


async def ask_for_nonsense(generate: Any, rng: random.Random) -> None:
    """Request a width that the service refuses."""
    request = _draw(rng)
    request.parameters.width = rng.choice([-1, 65, 2**30])
    await _read(generate(request))


WAYS: tuple[Callable[[Any, random.Random], Awaitable[None]], ...] = (
    read_to_the_end,
    cancel,
    vanish,
    be_in_a_hurry,
    come_back,
    ask_for_nonsense,
)


def main() -> None:
    """Run the clients, check the service, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="duration (default: 10)")
    minutes: float = parser.parse_args().minutes
    with run_service() as service:
        asyncio.run(run(service.target, WARM_UP_S))
        before = service.read_usage()
        with unharmed(service):
            outcomes = asyncio.run(run(service.target, minutes * 60))
            for outcome, count in sorted(outcomes.items()):
                print(f"{outcome:<44}{count:>8}")
        after = service.read_usage()
    print(f"{'':<44}{'before':>8}{'after':>8}")
    for name, value in asdict(before).items():
        print(f"{name:<44}{value:>8.0f}{asdict(after)[name]:>8.0f}")
    write_report(
        "soak",
        {
            "minutes": minutes,
            "clients": CLIENTS,
            "outcomes": dict(sorted(outcomes.items())),
            "before": asdict(before),
            "after": asdict(after),
        },
    )


async def run(target: str, seconds: float) -> Counter[str]:
    """Run all clients; return the number of calls by behaviour and outcome."""
    outcomes: Counter[str] = Counter()
    ends_at = time.monotonic() + seconds

    async def behave(rng: random.Random) -> None:
        while time.monotonic() < ends_at:
            way = rng.choice(WAYS)
            outcomes[f"{way.__name__}: {await _outcome_of(way, target, rng)}"] += 1

    await asyncio.gather(*(behave(random.Random(number)) for number in range(CLIENTS)))
    await asyncio.sleep(LINGER_S + 1)
    return outcomes


async def _outcome_of(
    way: Callable[[Any, random.Random], Awaitable[None]], target: str, rng: random.Random
) -> str:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        try:
            await way(pb_grpc.TextToImageServiceStub(channel).Generate, rng)
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


async def _read(call: Any, count: int | None = None) -> None:
    """Read `count` events, or all."""
    while count is None or count > 0:
        if await call.read() is grpc.aio.EOF:
            return
        count = None if count is None else count - 1


def _draw(rng: random.Random) -> pb.GenerateRequest:
    parameters = pb.TextToImageParameters(
        num_inference_steps=rng.randint(1, 12),
        width=rng.choice([64, 64, 96, 128]),
        height=64,
        seed=rng.randrange(1000),
    )
    preview = pb.PreviewOptions(interval_steps=rng.randrange(3))
    return pb.GenerateRequest(
        inputs=rng.choice(["a red circle", "two blue stars at night", "a", "heart " * 6]),
        parameters=parameters,
        image_count=rng.choice([1, 1, 1, 3]),
        preview=preview,
    )


if __name__ == "__main__":
    main()
