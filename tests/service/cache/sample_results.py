"""Sample results: arbitrary bytes as images, with correct sizes and hashes."""

import hashlib

from safelight_service.cache.results import Result
from safelight_service.core.events import Image


def make_result(*images: bytes) -> Result:
    """Return a result with these images."""
    return Result(tuple(make_image(index, data) for index, data in enumerate(images)), 20)


def make_image(index: int, data: bytes) -> Image:
    """Return an image with these bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Image(index, "image/png", 64, 96, 7 + index, False, sha256, data)
