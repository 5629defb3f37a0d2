"""The safety check on the device, compared with diffusers' own on the host with Pillow."""

from typing import Any

import pytest
import torch
from torch.nn.functional import interpolate
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPImageProcessorPil

from safelight_service.engine.pipeline.safety_check import ClipPreprocessor, SafetyChecker
from support.pipelines.families import make_pipeline
from support.pipelines.safety_checkers import make_checked_pipeline

SIZES = [(512, 768), (640, 448), (224, 224), (225, 227), (64, 96), (96, 1024)]
"""Heights and widths; some are smaller than CLIP's input, some shrink by an uneven factor."""

COUNT = 12


def make_images(height: int, width: int, count: int = COUNT) -> torch.Tensor:
    """Draw smooth pictures (count, 3, height, width) that reach a little beyond [-1, 1]."""
    random = torch.Generator().manual_seed(height * width)
    colours = torch.randn(count, 3, 7, 5, generator=random)
    smooth = interpolate(colours, (height, width), mode="bicubic")
    return smooth + 0.02 * torch.randn(count, 3, height, width, generator=random)


def prepare_with_pillow(pipeline: Any, images: torch.Tensor) -> torch.Tensor:
    pictures = pipeline.image_processor.postprocess(images, output_type="pil")
    pixel_values: torch.Tensor = pipeline.feature_extractor(
        pictures, return_tensors="pt"
    ).pixel_values
    return pixel_values


def flag_on_the_host(pipeline: Any, images: torch.Tensor) -> list[bool]:
    _, flags = pipeline.run_safety_checker(images.clone(), torch.device("cpu"), pipeline.dtype)
    return [bool(flag) for flag in flags]


def scores_of(pipeline: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the similarity of images to the concepts and to the special ones: (n, 17), (n, 3)."""
    checker = pipeline.safety_checker
    with torch.no_grad():
        pooled = checker.vision_model(prepare_with_pillow(pipeline, images))[1]
        embedded = checker.visual_projection(pooled)
    return tuple(  # type: ignore[return-value]
        torch.cosine_similarity(embedded[:, None], concepts[None], dim=-1)
        for concepts in (checker.concept_embeds, checker.special_care_embeds)
    )


def set_thresholds(pipeline: Any, concept: torch.Tensor, special: torch.Tensor) -> None:
    pipeline.safety_checker.concept_embeds_weights.data.copy_(concept)
    pipeline.safety_checker.special_care_embeds_weights.data.copy_(special)


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """A pipeline with a checker, whose thresholds each test sets."""
    return make_checked_pipeline()


def checker_of(pipeline: Any) -> SafetyChecker:
    checker = SafetyChecker.of(pipeline)
    assert checker is not None
    return checker


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pictures_are_prepared_as_pillow_prepares_them(
    pipeline: Any, height: int, width: int
) -> None:
    images = make_images(height, width)
    prepare = ClipPreprocessor(pipeline.feature_extractor, images.device)
    levels, expected = (
        values * torch.tensor(pipeline.feature_extractor.image_std).view(-1, 1, 1) * 255
        for values in (prepare(images), prepare_with_pillow(pipeline, images))
    )
    assert levels.shape == expected.shape
    difference = (levels - expected).abs()
    assert difference.max() < 2.01  # levels of 255
    assert (difference > 0.01).float().mean() < 0.005


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_flags_are_those_of_the_pipelines_own_checker(
    pipeline: Any, height: int, width: int
) -> None:
    images = make_images(height, width)
    concept, _ = scores_of(pipeline, images)
    # At the median similarity to the nearest concept, about half of the images are flagged.
    set_thresholds(pipeline, concept.max(dim=1).values.median() + 0.004, torch.tensor(1.0))
    expected = flag_on_the_host(pipeline, images)
    assert {True, False} == set(expected)
    assert checker_of(pipeline).check(images).are_flagged.tolist() == expected


def test_pictures_near_a_special_concept_are_judged_more_strictly(pipeline: Any) -> None:
    images = make_images(256, 320, count=1) + 0.02 * make_images(256, 320)
    concept, special = scores_of(pipeline, images)
    nearest = concept.max(dim=1).values
    assert nearest.max() - nearest.min() < 0.0085
    # All are below the threshold, but by less than the 0.01 that a special concept adds.
    set_thresholds(pipeline, nearest.max() + 0.0008, special.max(dim=1).values.median() - 0.0005)
    expected = flag_on_the_host(pipeline, images)
    assert {True, False} == set(expected)
    assert checker_of(pipeline).check(images).are_flagged.tolist() == expected


def test_scores_are_rounded_to_three_decimals_before_they_are_judged(pipeline: Any) -> None:
    images = make_images(256, 256, count=1)
    concept, _ = scores_of(pipeline, images)
    for above, is_flagged in ((0.0003, False), (0.0007, True)):
        set_thresholds(pipeline, concept.max() - above, torch.tensor(1.0))
        assert flag_on_the_host(pipeline, images) == [is_flagged]
        assert checker_of(pipeline).check(images).are_flagged.tolist() == [is_flagged]


def test_pictures_of_a_batch_are_judged_as_each_alone(pipeline: Any) -> None:
    images = make_images(256, 384)
    concept, _ = scores_of(pipeline, images)
    set_thresholds(pipeline, concept.max(dim=1).values.median() + 0.004, torch.tensor(1.0))
    checker = checker_of(pipeline)
    alone = [checker.check(image[None]).are_flagged.tolist() for image in images]
    assert [[flag] for flag in checker.check(images).are_flagged.tolist()] == alone


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_checker_of_low_precision_judges_in_its_own(dtype: torch.dtype) -> None:
    pipeline = make_checked_pipeline().to(dtype=dtype)
    images = make_images(256, 256).to(dtype)
    for threshold in (-1.0, 1.0):
        set_thresholds(pipeline, torch.tensor(threshold), torch.tensor(1.0))
        assert checker_of(pipeline).check(images).are_flagged.tolist() == flag_on_the_host(
            pipeline, images
        )


class StayOnMeta(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails on operations that copy from or to another device."""

    count = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        assert {tensor.device.type for tensor in tensors} <= {"meta"}, operator
        self.count += 1
        return result


def test_nothing_waits_for_the_device() -> None:
    """On a device without contents, every read fails."""
    pipeline = make_checked_pipeline().to("meta")
    checker = checker_of(pipeline)
    images = torch.empty(3, 3, 512, 768, device="meta")
    with StayOnMeta() as seen:  # type: ignore[no-untyped-call]
        flags = checker.check(images).are_flagged
    assert (flags.device.type, flags.shape, flags.dtype) == ("meta", (3,), torch.bool)
    assert seen.count > 0


@pytest.mark.parametrize("family", ["sd15", "lcm", "hunyuan-dit"])
def test_pipelines_with_a_checker_have_one(family: str) -> None:
    assert SafetyChecker.of(make_checked_pipeline(family)) is not None


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_pipelines_without_a_checker_have_none(family: str) -> None:
    assert SafetyChecker.of(make_pipeline(family)) is None


@pytest.mark.parametrize(
    "config",
    [
        {"do_center_crop": False},
        {"resample": 2},
        {"size": {"height": 224, "width": 224}},
        {"size": {"shortest_edge": 224, "longest_edge": 448}},
        {"size": {"shortest_edge": 200}},
    ],
)
def test_a_feature_extractor_of_another_kind_is_left_to_the_pipeline(config: Any) -> None:
    pipeline: Any = make_checked_pipeline()
    pipeline.register_modules(feature_extractor=CLIPImageProcessorPil(**config))
    assert SafetyChecker.of(pipeline) is None
