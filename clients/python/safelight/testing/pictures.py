"""The pictures of the fake service: PNG images of one colour, and constant previews."""

import base64
import struct
import zlib

PREVIEW_SIDE_PX = 16

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


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
