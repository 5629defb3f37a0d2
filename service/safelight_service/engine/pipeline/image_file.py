"""Image files: compress pictures to the requested format."""

import io

import PIL.Image

from safelight_service.core.request import ResolvedOutput
from safelight_service.provenance.tags import Tags

_FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
_PNG_COMPRESSION = 3
"""About as fast as level 1 and as small as level 6, on photographs and on flat shapes."""


def encode_image(picture: PIL.Image.Image, output: ResolvedOutput, tags: Tags) -> bytes:
    """Compress a finished picture, with its tags."""
    stream = io.BytesIO()
    options = tags.save_options(output.mime_type)
    if output.mime_type == "image/png":
        picture.save(stream, "PNG", compress_level=_PNG_COMPRESSION, **options)
    else:
        picture.convert("RGB").save(
            stream, _FORMATS[output.mime_type], quality=output.quality, **options
        )
    return stream.getvalue()


def encode_preview(picture: PIL.Image.Image, mime_type: str) -> bytes:
    """Compress a preview, tagged as generated; favours size over quality."""
    return encode_image(picture, ResolvedOutput(mime_type, quality=80), Tags())
