"""Images to store."""

from safelight import Image


def image(data: bytes) -> Image:
    """Return an image with these bytes, which need not be decodable."""
    return Image(
        image_index=0,
        mime_type="image/png",
        width=8,
        height=8,
        seed=1,
        is_flagged=False,
        sha256="",
        data=data,
    )
