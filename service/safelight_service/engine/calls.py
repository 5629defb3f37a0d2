"""Calls: the heavy work that a pipeline, halfway through, waits for."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """A denoiser's forward of `row_count` images; those of equal keys may be merged."""

    arguments: dict[str, Any]
    row_count: int
    key: Hashable


@dataclass(frozen=True, slots=True, eq=False)
class Decode:
    """A VAE's turning latents into pixels."""

    latents: Tensor
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """A safety check of images (1, 3, height, width) in [-1, 1]; equal sizes share one."""

    images: Tensor


Call = Forward | Decode | Check
