"""Signing: milliseconds and bytes of marks and signatures, by format, at 1024 x 1024."""

import io
import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import PIL.Image

from benchmarks.harness.report import Percentiles
from safelight_service.core.request import ResolvedOutput
from safelight_service.engine.pipeline.image_file import encode_image
from safelight_service.provenance.marker import Marker
from support.provenance.samples import FORMATS, ORIGIN, dev_settings

REPEATS = 200
SIDE_PX = 1024
QUALITY = 95


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one image: the time to compress and to sign it, and what it grows by."""

    encode_ms: float
    sign_ms: Percentiles
    sign_processor_ms: float
    """Median processor time of all threads, to which other work on the machine adds nothing."""
    tag_bytes: int
    manifest_bytes: int


def measure_signing(folder: Path) -> dict[str, Cost]:
    """Return the cost by MIME type; `folder` gets a certificate.

    Raises:
        AssertionError: a signature changes pixels.
    """
    marker = Marker(dev_settings(folder, required=True))
    # As smooth as a photograph: noise alone would take long to compress.
    noise = PIL.Image.effect_noise((SIDE_PX // 8, SIDE_PX // 8), 64).convert("RGB")
    picture = noise.resize((SIDE_PX, SIDE_PX), PIL.Image.Resampling.BICUBIC)
    return {mime_type: _measure(marker, mime_type, picture) for mime_type in FORMATS}


def _measure(marker: Marker, mime_type: str, picture: PIL.Image.Image) -> Cost:
    output = ResolvedOutput(mime_type, None if mime_type == "image/png" else QUALITY)
    origin = replace(ORIGIN, request=replace(ORIGIN.request, output=output))
    begun_at = time.perf_counter()
    data = encode_image(picture, output, marker.tag(origin))
    encode_ms = (time.perf_counter() - begun_at) * 1e3
    bare = io.BytesIO()
    if mime_type == "image/png":
        picture.save(bare, "PNG", compress_level=3)
    else:
        picture.save(bare, FORMATS[mime_type], quality=QUALITY)
    taken, processor_ms = [], []
    for _ in range(REPEATS):
        begun_at, processor_s = time.perf_counter(), time.process_time()
        signed = marker.sign(data, mime_type, origin)
        taken.append((time.perf_counter() - begun_at) * 1e3)
        processor_ms.append((time.process_time() - processor_s) * 1e3)
    assert signed is not None
    pictures = [PIL.Image.open(io.BytesIO(each)) for each in (bare.getvalue(), signed)]
    assert pictures[0].tobytes() == pictures[1].tobytes(), mime_type
    return Cost(
        encode_ms,
        Percentiles.of(taken),
        statistics.median(processor_ms),
        len(data) - len(bare.getvalue()),
        len(signed) - len(data),
    )
