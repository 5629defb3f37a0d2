"""SafetyChecker: diffusers' check of finished pictures, entirely on the device.

Stable Diffusion, LCM and Hunyuan-DiT come with a CLIP model that flags pictures. Their own
`run_safety_checker` copies each picture to the host, prepares it with Pillow and reads the scores
back. This module prepares and scores whole batches on the device, without a wait.
"""

from typing import Any, NamedTuple, Self

import torch
from PIL.Image import Resampling
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from safelight_service.core.errors import NonFiniteImageError

_CHECKER = "StableDiffusionSafetyChecker"
_EXTRACTORS = ("CLIPImageProcessor", "CLIPImageProcessorPil")
"""Class names, since importing the classes loads libraries that few models need."""

_CARE = 0.01
"""Added to the scores of a picture that matches a special concept."""


class ClipPreprocessor:
    """Prepares pictures for CLIP as the feature extractor does.

    Follows Pillow: an antialiased bicubic filter (a = -0.5), along the rows and then the columns,
    rounded to 8 bits after each. Pillow calculates in fixed point, so fewer than one value in 200
    differs, by one or two levels of 255.
    """

    def __init__(self, extractor: Any, device: torch.device) -> None:
        self._shortest_px: int = extractor.size["shortest_edge"]
        self._crop_px: tuple[int, int] = extractor.crop_size["height"], extractor.crop_size["width"]
        self._rescale_factor: float = extractor.rescale_factor
        channels = (-1, 1, 1)
        self._mean = torch.tensor(extractor.image_mean, device=device).view(channels)
        self._std = torch.tensor(extractor.image_std, device=device).view(channels)

    @staticmethod
    def knows(extractor: Any) -> bool:
        """Whether this class supports the configuration of a feature extractor."""
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        if type(extractor).__name__ not in _EXTRACTORS or not all(
            getattr(extractor, step) for step in steps
        ):
            return False
        size = dict(extractor.size)
        return (
            extractor.resample == Resampling.BICUBIC
            and size.keys() == {"shortest_edge"}
            # A larger crop would be padded with black.
            and max(extractor.crop_size["height"], extractor.crop_size["width"])
            <= size["shortest_edge"]
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Convert images (n, 3, height, width) in [-1, 1] to float32 pixel values (n, 3, *crop)."""
        height, width = images.shape[-2:]
        shortest = min(height, width)
        height_px = self._shortest_px * height // shortest
        width_px = self._shortest_px * width // shortest
        levels = ((images * 0.5 + 0.5).clamp(0, 1).float() * 255).round()
        levels = _resize(_resize(levels, height, width_px), height_px, width_px)
        top = (height_px - self._crop_px[0]) // 2
        left = (width_px - self._crop_px[1]) // 2
        cropped = levels[..., top : top + self._crop_px[0], left : left + self._crop_px[1]]
        return (cropped * self._rescale_factor - self._mean) / self._std


class Verdicts(NamedTuple):
    """Outcome of a check: bools (n,) for n pictures, or () for one, on the pictures' device."""

    are_flagged: Tensor
    are_finite: Tensor
    """Whether all scores are finite; otherwise a flag says nothing."""


class SafetyChecker:
    """Flags the pictures that a pipeline's own safety checker would flag.

    Attributes:
        thresholds: similarity at which each concept flags an image, (concepts,).
        special_thresholds: the same for the concepts that lower all other thresholds.
    """

    def __init__(self, checker: Any, extractor: Any, device: torch.device) -> None:
        self._preprocess = ClipPreprocessor(extractor, device)
        self._vision_model = checker.vision_model
        self._visual_projection = checker.visual_projection
        self._dtype = checker.concept_embeds.dtype
        self._concepts = normalize(checker.concept_embeds.detach().to(device))
        self.thresholds = checker.concept_embeds_weights.detach().to(device).float()
        self._special_concepts = normalize(checker.special_care_embeds.detach().to(device))
        self.special_thresholds = checker.special_care_embeds_weights.detach().to(device).float()

    @classmethod
    def of(cls, pipeline: Any) -> Self | None:
        """Make the checker of a pipeline, or return None to keep its own `run_safety_checker`.

        None if the pipeline lacks a checker or a feature extractor, or has one of another kind or
        configuration. None also if the checker is offloaded.
        """
        checker = getattr(pipeline, "safety_checker", None)
        extractor = getattr(pipeline, "feature_extractor", None)
        is_offloaded = hasattr(checker, "_hf_hook")
        if type(checker).__name__ != _CHECKER or is_offloaded:
            return None
        if not ClipPreprocessor.knows(extractor):
            return None
        return cls(checker, extractor, pipeline._execution_device)

    @torch.no_grad()
    def check(self, images: Tensor) -> Verdicts:
        """Check decoded images (n, 3, height, width) in [-1, 1].

        The verdicts stay on the images' device; the method does not wait for it.
        """
        pixel_values = self._preprocess(images).to(self._dtype)
        pooled = self._vision_model(pixel_values)[1]
        embedded = normalize(self._visual_projection(pooled))
        special = (embedded @ self._special_concepts.T).float() - self.special_thresholds
        care = _is_positive(special).any(dim=1, keepdim=True) * _CARE
        scores = (embedded @ self._concepts.T).float() - self.thresholds + care
        are_finite = torch.cat([special, scores], dim=1).isfinite().all(dim=1)
        return Verdicts(_is_positive(scores).any(dim=1), are_finite)


def guard(checker: Any) -> None:
    """Make a pipeline's own checker raise an error where it would pass scores that are not finite.

    For pipelines without a `SafetyChecker`, whose checks wait for the device in any case.

    Raises, in a later check:
        NonFiniteImageError: a score is not finite.
    """

    def check(module: Any, _: Any, projected: Tensor) -> None:
        thresholds = checker.concept_embeds_weights, checker.special_care_embeds_weights
        embeds = checker.concept_embeds, checker.special_care_embeds
        if not all(each.isfinite().all() for each in (projected, *thresholds, *embeds)):
            raise NonFiniteImageError

    checker.visual_projection.register_forward_hook(check)


def _is_positive(scores: Tensor) -> Tensor:
    """Return whether scores are above 0, rounded to three decimals as in diffusers."""
    return scores.round(decimals=3) > 0


def _resize(levels: Tensor, height: int, width: int) -> Tensor:
    """Resize pictures to 8-bit levels as floats; round halves up, as in Pillow."""
    resized = interpolate(levels, (height, width), mode="bicubic", antialias=True)
    return (resized + 0.5).floor().clamp(0, 255)
