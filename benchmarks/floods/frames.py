"""Frames: the bytes of HTTP/2 that floods send, without the state that a client would keep."""

import struct

from hpack import Encoder, NeverIndexedHeaderTuple
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, SettingsFrame

HEALTH = "/grpc.health.v1.Health/"
CONTRACT = "/safelight.v1.TextToImageService/"

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0, {4: 1 << 20}).serialize()
PINGS = PingFrame(0, b"8 bytes.").serialize() * 1000
SETTINGS = SettingsFrame(0, {1: 4096}).serialize() * 1000
CONTINUATION = ContinuationFrame(1, bytes(16384)).serialize()

_END_HEADERS, _END_STREAM = 0x4, 0x1
_MAX_FRAME_BYTES = 16384


def encode_headers(path: str, metadata: dict[str, str] | None = None) -> bytes:
    """Encode the headers of a call so that the block is right on any connection, repeatedly."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **(metadata or {}),
    }
    block = Encoder().encode([NeverIndexedHeaderTuple(*field) for field in fields.items()])
    return bytes(block)


def open_stream(stream: int, block: bytes) -> bytes:
    """Return the frames that open a stream with a block of headers of any size."""
    first, rest = block[:_MAX_FRAME_BYTES], block[_MAX_FRAME_BYTES:]
    frames = [HeadersFrame(stream, first, flags=[] if rest else ["END_HEADERS"]).serialize()]
    while rest:
        part, rest = rest[:_MAX_FRAME_BYTES], rest[_MAX_FRAME_BYTES:]
        flags = [] if rest else ["END_HEADERS"]
        frames.append(ContinuationFrame(stream, part, flags=flags).serialize())
    return b"".join(frames)


def begin_headers(stream: int, block: bytes) -> bytes:
    """Return a frame with half of a block of headers; the rest would have to follow."""
    return HeadersFrame(stream, block[: len(block) // 2]).serialize()


def reset_streams(first: int, count: int, block: bytes) -> bytes:
    """Return the frames that open and at once reset some streams."""
    begin = struct.pack(">I", len(block))[1:] + bytes([1, _END_HEADERS])
    end = struct.pack(">I", 4)[1:] + bytes([3, 0])
    cancel = struct.pack(">I", 8)
    ids = (struct.pack(">I", stream) for stream in range(first, first + 2 * count, 2))
    return b"".join(begin + name + block + end + name + cancel for name in ids)


def send_message(stream: int, message: bytes) -> bytes:
    """Return the frames of a whole message and the end of its stream."""
    body = struct.pack(">?I", False, len(message)) + message
    return DataFrame(stream, body, flags=["END_STREAM"]).serialize()


def begin_message(stream: int, size: int) -> bytes:
    """Return the frame that announces a message of `size` bytes."""
    return DataFrame(stream, struct.pack(">?I", False, size)).serialize()


def send_data(stream: int, size: int) -> bytes:
    """Return a frame with `size` bytes of a message."""
    return DataFrame(stream, bytes(size)).serialize()


def repeat_header(count: int) -> bytes:
    """Return a block that puts one long header into the table, then names it `count` times."""
    entry = Encoder().encode([("x-filler", "x" * 3900)])
    index = 62  # the newest of the dynamic table
    return encode_headers(f"{CONTRACT}Generate") + bytes(entry) + bytes([0x80 | index]) * count
