"""The pictures of the fake service: PNG images of one colour, and constant previews."""

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator

from safelight.v1 import text_to_image_pb2 as pb

PREVIEW_SIDE_PX = 16
_CHUNK_BYTES = 1024 * 1024

PREVIEWS = {
    "image/jpeg": base64.b64decode(
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABsSFBcUERsXFhceHBsgKEIrKCUlKFE6PTBCYFVlZF9VXVtq"
        "eJmBanGQc1tdhbWGkJ6jq62rZ4C8ybqmx5moq6T/wAALCAAQABABAREA/8QAFAABAAAAAAAAAAAAAAAA"
        "AAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AAP/Z"
    ),
    "image/webp": base64.b64decode("UklGRhYAAABXRUJQVlA4TAoAAAAvD8ADAEUBI/of"),
}
"""A grey square by MIME type, `PREVIEW_SIDE_PX` wide and high."""


def make_png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """Return a PNG image of one colour.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        colour: Red, green and blue, each from 0 to 255.
    """
    row = b"\0" + bytes(colour) * width
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(row * height)),
            _chunk(b"IEND", b""),
        )
    )


def image_events(
    header: pb.ImageHeader, data: bytes, chunk_bytes: int = _CHUNK_BYTES
) -> Iterator[pb.GenerationEvent]:
    """Yield an image's announcement and its chunks.

    Args:
        header: The announcement; its size and SHA-256 are filled in, if unset.
        data: All bytes of the image.
        chunk_bytes: Largest number of bytes in a chunk.
    """
    announced = pb.ImageHeader(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    announced.MergeFrom(header)
    yield pb.GenerationEvent(image=announced)
    for offset in range(0, len(data), chunk_bytes):
        chunk = pb.ImageChunk(
            image_index=header.image_index,
            offset_bytes=offset,
            data=data[offset : offset + chunk_bytes],
        )
        yield pb.GenerationEvent(chunk=chunk)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
