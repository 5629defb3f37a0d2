"""Rendering: turns pictures on the device into compressed images, in encoder threads."""

import hashlib
from collections.abc import Sequence

import PIL.Image
import torch
from torch import Tensor

from safelight_service.core.errors import NonFiniteImageError
from safelight_service.core.events import Event, Image, Preview
from safelight_service.core.request import ResolvedRequest
from safelight_service.engine import hardware
from safelight_service.engine.pipeline.image_file import encode_image, encode_preview
from safelight_service.provenance.marker import Marker
from safelight_service.provenance.origin import Origin


class Pixels:
    """A picture (3, height, width) in [0, 1] on its way from the device to the host.

    The device thread makes it without a wait; `take` waits, in an encoder thread. The constructor
    does all arithmetic, which on a CPU would give encoder threads teams of OpenMP threads. A
    picture that is flagged as unsafe becomes black.

    There is no picture if one of its values is not finite, which rounding would make black, or if
    one of `checks` is false, bools () on the device. The verdict comes with the pixels in one copy.
    """

    def __init__(
        self,
        picture: Tensor,
        is_flagged: Tensor | bool = False,
        checks: Sequence[Tensor] = (),
    ) -> None:
        scaled = (picture.float() * 255).round().to(torch.uint8)
        if isinstance(is_flagged, Tensor):
            scaled = scaled.masked_fill(is_flagged, 0)
        else:
            is_flagged = torch.full((), is_flagged, device=picture.device)
        checks = [picture.isfinite().all(), *(check.to(picture.device) for check in checks)]
        verdicts = torch.stack([is_flagged, torch.stack(checks).all()]).to(torch.uint8)
        pixels = scaled.movedim(0, -1)
        self._shape = pixels.shape
        self._bytes = torch.cat([verdicts, pixels.flatten()])
        is_queued = hardware.is_asynchronous(picture.device)
        self._is_drawn = hardware.mark(picture.device) if is_queued else None

    @property
    def is_drawn(self) -> bool:
        """Whether the picture is complete already, as on a synchronous device."""
        return self._is_drawn is None

    def take(self) -> tuple[PIL.Image.Image, bool]:
        """Wait for the picture and copy it to the host; return it, and whether it is flagged.

        Raises:
            NonFiniteImageError: there is no picture.
        """
        if self._is_drawn is None:
            return self._copy()
        with hardware.on_side_stream(self._bytes.device, self._is_drawn):
            return self._copy()

    def _copy(self) -> tuple[PIL.Image.Image, bool]:
        copied = self._bytes.cpu().numpy()
        is_flagged, is_finite = copied[:2]
        if not is_finite:
            raise NonFiniteImageError
        return PIL.Image.fromarray(copied[2:].reshape(self._shape)), bool(is_flagged)


def render_image(
    picture: PIL.Image.Image,
    origin: Origin,
    index: int,
    is_flagged: bool,
    marker: Marker,
) -> Event:
    """Compress a finished image, mark it as generated, and return its event.

    Raises:
        UnsignedImageError: it cannot be signed, which the settings require.
    """
    output = origin.request.output
    unsigned = encode_image(picture, output, marker.tag(origin))
    signed = marker.sign(unsigned, output.mime_type, origin)
    data = unsigned if signed is None else signed
    return Image(
        index,
        output.mime_type,
        picture.width,
        picture.height,
        origin.seed,
        is_flagged,
        hashlib.sha256(data).hexdigest(),
        data,
        is_cacheable=signed is not None,
    )


def render_preview(pixels: Pixels, request: ResolvedRequest, index: int, step: int) -> Event | None:
    """Scale a preview up from one pixel for each latent cell, compress it and return its event.

    Returns None without a picture: only the finished image fails its generation.
    """
    wanted, parameters = request.preview, request.parameters
    assert wanted is not None
    scale = wanted.max_side_px / max(parameters.width, parameters.height)
    width = max(1, round(parameters.width * scale))
    height = max(1, round(parameters.height * scale))
    try:
        picture, _ = pixels.take()
    except NonFiniteImageError:
        return None
    picture = picture.resize((width, height), PIL.Image.Resampling.BICUBIC)
    data = encode_preview(picture, wanted.mime_type)
    return Preview(index, step, wanted.mime_type, width, height, data)
