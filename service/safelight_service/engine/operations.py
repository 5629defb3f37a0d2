"""Operations: the heavy work that pipelines hand to the device thread."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from safelight_service.engine.lora.lora import NO_ADAPTERS, Mixture


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """A denoiser's forward of `row_count` rows; forwards with equal keys may be merged."""

    arguments: dict[str, Any]
    row_count: int
    key: Hashable
    mixture: Mixture = NO_ADAPTERS


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """A VAE's decoding of latents (1, channels, ...) into pixels."""

    latents: Tensor
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True, eq=False)
class SafetyCheck:
    """A safety check of images (1, 3, height, width) in [-1, 1]; equal sizes share one."""

    images: Tensor


Operation = Forward | Decode | SafetyCheck
"""One piece of device work; its pipeline is suspended until the result is there."""
