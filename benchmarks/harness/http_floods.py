"""HTTP floods: one caller that wants everything of a gateway.

`python -m benchmarks.harness.http_floods NAME URL` sends one until it is stopped. The module
imports little, so that a flood begins at once.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

WEAK_TOKEN = "weak"
"""Token of the caller that floods."""
_ADDRESS = "127.0.0.2"
_BEGUN_AFTER_S = 2.0

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def send_heads_slowly(url: str) -> None:
    """Send a byte of a head every second, on 300 connections."""
    await _keep(url, 300, lambda stream: _drip(stream, b"GET /healthz HTTP/1.1\r\nX-Header: "))


async def send_bodies_slowly(url: str) -> None:
    """Send a byte of a body every second, on 300 connections."""
    await _keep(url, 300, lambda stream: _drip(stream, _head("/v1/generate", 100_000)))


async def leave_bodies_unfinished(url: str) -> None:
    """Send all but one byte of large bodies, on 600 connections."""
    size = 1024 * 1024

    async def send(stream: Stream) -> None:
        reader, writer = stream
        writer.write(_head("/v1/generate", size) + bytes(size - 1))
        await writer.drain()
        await reader.read()

    await _keep(url, 600, send)


async def read_slowly(url: str) -> None:
    """Ask for the playground a hundred times on each of 300 connections, and read nothing."""

    async def send(stream: Stream) -> None:
        _, writer = stream
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        await writer.drain()
        await asyncio.sleep(3600.0)

    await _keep(url, 300, send)


async def watch_much(url: str) -> None:
    """Watch one generation on 520 event streams, again and again after its end."""
    body = json.dumps(
        {
            "inputs": "a red circle",
            "generation_id": "watched",
            "linger": "3600s",
            "parameters": {"num_inference_steps": 100, "width": 64, "height": 64, "seed": 1},
        }
    ).encode()

    async def watch(stream: Stream) -> None:
        reader, writer = stream
        writer.write(
            f"GET /v1/generations/watched HTTP/1.1\r\nHost: a\r\n"
            f"Authorization: Bearer {WEAK_TOKEN}\r\n\r\n".encode()
        )
        while await reader.read(2**16):
            pass

    async def generate(stream: Stream) -> None:
        reader, writer = stream
        writer.write(_head("/v1/generate", len(body), WEAK_TOKEN) + body)
        while await reader.read(2**16):
            pass

    await asyncio.gather(_keep(url, 1, generate), _keep(url, 520, watch))


async def post_with_unknown_tokens(url: str) -> None:
    """Queue requests with made-up tokens, on 32 connections."""
    body = json.dumps({"prompt": "a red circle"}).encode()
    number = 0

    async def send(stream: Stream) -> None:
        nonlocal number
        reader, writer = stream
        while not reader.at_eof():
            number += 1
            writer.write(_head("/fal-queue/shapes", len(body), f"unknown-{number}") + body)
            await reader.readuntil(b"\r\n\r\n")

    await _keep(url, 32, send)


async def pipeline_garbage(url: str) -> None:
    """Send requests followed by garbage, on 32 connections, and connect again."""

    async def send(stream: Stream) -> None:
        reader, writer = stream
        writer.write(b"GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n" * 20 + b"\0garbage\r\n\r\n" * 20)
        await reader.read()

    await _keep(url, 32, send)


FLOODS: dict[str, Callable[[str], Awaitable[None]]] = {
    "slow heads": send_heads_slowly,
    "slow bodies": send_bodies_slowly,
    "unfinished bodies": leave_bodies_unfinished,
    "slow readers": read_slowly,
    "event streams": watch_much,
    "unknown tokens": post_with_unknown_tokens,
    "garbage": pipeline_garbage,
}


async def _keep(url: str, count: int, use: Callable[[Stream], Awaitable[None]]) -> None:
    """Keep connections open, each for one use and then another."""
    address = urlsplit(url)

    async def repeat() -> None:
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                stream = await asyncio.open_connection(
                    address.hostname, address.port, local_addr=(_ADDRESS, 0)
                )
                try:
                    await use(stream)
                finally:
                    stream[1].close()
            await asyncio.sleep(0.05)

    await asyncio.gather(*(repeat() for _ in range(count)))


async def _drip(stream: Stream, head: bytes) -> None:
    reader, writer = stream
    writer.write(head)
    while not reader.at_eof():
        writer.write(b"x")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(2**16), 1.0)


def _head(path: str, length: int, token: str = "") -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"POST {path} HTTP/1.1\r\nHost: a\r\n{authorization}Content-Length: {length}\r\n\r\n"
    ).encode()


async def _main(name: str, url: str) -> None:
    flooding = asyncio.ensure_future(FLOODS[name](url))
    await asyncio.sleep(_BEGUN_AFTER_S)
    print("begun", flush=True)
    await flooding


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
