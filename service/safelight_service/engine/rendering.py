"""Rendering: tensors on the device to compressed pictures, in the encoders' threads."""

import hashlib

import PIL.Image
import torch
from torch import Tensor

from safelight_service.engine import hardware
from safelight_service.generation import Event, Image, Preview, ResolvedRequest
from safelight_service.image_file import encode_image, encode_preview


class Pixels:
    """A picture on the device, (3, height, width) in [0, 1], on its way to the host.

    The device thread makes it and does not wait for it; the thread that takes it does. All
    arithmetic is done here; on a CPU it would leave the other thread with a team of OpenMP threads.
    """

    def __init__(self, picture: Tensor) -> None:
        scaled = (picture.float() * 255).round().to(torch.uint8)
        self._bytes = scaled.movedim(0, -1).contiguous()
        is_queued = hardware.is_asynchronous(picture.device)
        self._is_drawn = hardware.mark(picture.device) if is_queued else None

    @property
    def is_drawn(self) -> bool:
        """Whether it was drawn before it was handed on, as on a device that works at once."""
        return self._is_drawn is None

    def take(self) -> PIL.Image.Image:
        """Wait until it is drawn, and copy it to the host."""
        if self._is_drawn is None:
            return PIL.Image.fromarray(self._bytes.numpy())
        with hardware.beside(self._bytes.device, self._is_drawn):
            return PIL.Image.fromarray(self._bytes.cpu().numpy())


def render_image(
    picture: PIL.Image.Image,
    request: ResolvedRequest,
    model: str,
    index: int,
    seed: int,
    is_flagged: bool,
) -> Event:
    """Compress a finished image."""
    data = encode_image(picture, request, seed=seed, model=model)
    sha256 = hashlib.sha256(data).hexdigest()
    size = picture.width, picture.height
    return Image(index, request.output.mime_type, *size, seed, is_flagged, sha256, data)


def render_preview(pixels: Pixels, request: ResolvedRequest, index: int, step: int) -> Event:
    """Enlarge a preview from one pixel a latent cell, and compress it."""
    wanted, parameters = request.preview, request.parameters
    assert wanted is not None
    scale = wanted.max_side_px / max(parameters.width, parameters.height)
    width = max(1, round(parameters.width * scale))
    height = max(1, round(parameters.height * scale))
    picture = pixels.take().resize((width, height), PIL.Image.Resampling.BICUBIC)
    data = encode_preview(picture, wanted.mime_type)
    return Preview(index, step, wanted.mime_type, width, height, data)
