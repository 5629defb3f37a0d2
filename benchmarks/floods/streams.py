"""Streams: what one connection of a flood sends, as parts without end."""

import time
from collections.abc import Iterator

from benchmarks.floods import frames

_BATCH = 200
_MESSAGE_BYTES = 3 * 1024 * 1024

Frames = Iterator[bytes]
"""Bytes to send on one connection, until the service closes it."""


def send_resets(path: str) -> Frames:
    """Open and reset streams without end."""
    block = frames.encode_headers(path)
    stream = 1
    while True:
        yield frames.reset_streams(stream, _BATCH, block)
        stream += 2 * _BATCH


def send_calls(path: str, metadata: dict[str, str] | None = None, message: bytes = b"") -> Frames:
    """Make whole calls as fast as the connection takes them."""
    block = frames.encode_headers(path, metadata)
    stream = 1
    while True:
        yield frames.open_stream(stream, block) + frames.send_message(stream, message)
        stream += 2


def open_calls(
    path: str, count: int, metadata: dict[str, str] | None = None, message: bytes = b""
) -> Frames:
    """Make some calls, and keep their streams open."""
    calls = send_calls(path, metadata, message)
    for _ in range(count):
        yield next(calls)
    yield from wait()


def send_headers(block: bytes) -> Frames:
    """Open streams with a block of headers, without end."""
    stream = 1
    while True:
        yield frames.open_stream(stream, block)
        stream += 2


def send_without_end(data: bytes) -> Frames:
    """Repeat bytes without end."""
    while True:
        yield data


def send_continuations() -> Frames:
    """Begin headers that never end."""
    yield frames.begin_headers(1, frames.encode_headers(f"{frames.CONTRACT}Generate"))
    yield from send_without_end(frames.CONTINUATION)


def dribble(path: str, count: int) -> Frames:
    """Announce large messages on some streams, and send one byte of each a second."""
    block = frames.encode_headers(path)
    streams = range(1, 2 * count, 2)
    yield b"".join(frames.open_stream(s, block) + frames.begin_message(s, 1 << 20) for s in streams)
    while True:
        time.sleep(1)
        yield b"".join(frames.send_data(stream, 1) for stream in streams)


def fill(path: str, count: int) -> Frames:
    """Send messages of 3 MiB on some streams, each without its last byte.

    Ignores flow control, and so may end by an error of the connection.
    """
    block = frames.encode_headers(path)
    for stream in range(1, 2 * count, 2):
        yield frames.open_stream(stream, block) + frames.begin_message(stream, _MESSAGE_BYTES)
        for _ in range(4):
            yield frames.send_data(stream, 16000)
    yield from wait()


def wait() -> Frames:
    """Send nothing more."""
    while True:
        time.sleep(0.5)
        yield b""
