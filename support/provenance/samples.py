"""Samples: an image's origin, its file, and certificates."""

import io
from dataclasses import replace
from pathlib import Path

import PIL.Image

from safelight_service.core.request import ResolvedOutput, ResolvedParameters, ResolvedRequest
from safelight_service.provenance.dev_certificate import (
    CERTIFICATE,
    PRIVATE_KEY,
    write_dev_certificate,
)
from safelight_service.provenance.marker import Marker
from safelight_service.provenance.origin import Origin
from safelight_service.settings import ProvenanceSettings

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WEBP"}
"""Pillow's names of the formats."""

_PARAMETERS = ResolvedParameters(4.0, "blurred, dark", 20, 96, 64, "euler_a", 7)
_REQUEST = ResolvedRequest(
    "a red circle 🎈", _PARAMETERS, 1, ResolvedOutput("image/png", None), None
)
ORIGIN = Origin("shapes", "r1", _REQUEST, 7, "Euler a")


def with_prompt(prompt: str) -> Origin:
    """Return the origin of an image with that prompt."""
    return replace(ORIGIN, request=replace(_REQUEST, inputs=prompt))


def write_file(
    mime_type: str, marker: Marker, origin: Origin = ORIGIN, picture: PIL.Image.Image | None = None
) -> bytes:
    """Return an image file with the tags of a marker, unsigned."""
    stream = io.BytesIO()
    picture = picture or PIL.Image.effect_noise((96, 64), 64).convert("RGB")
    picture.save(stream, FORMATS[mime_type], **marker.tag(origin).save_options(mime_type))
    return stream.getvalue()


def dev_settings(folder: Path, **others: object) -> ProvenanceSettings:
    """Make a development certificate in a folder without one; return settings that use it."""
    if not (folder / CERTIFICATE).exists():
        write_dev_certificate(folder)
    files = {"certificate": folder / CERTIFICATE, "private_key": folder / PRIVATE_KEY}
    return ProvenanceSettings.model_validate({**files, **others})
