"""The shape of an image, fitted to the limits of a model."""

from typing import Any

import pytest
from safelight import Parameters
from safelight.models import Capabilities, Limits

from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.shape import Shape, fit_shape

MEGAPIXEL = 1024 * 1024


def capable(
    side_px: int, *, least: int = 64, most: int = 512, multiple: int = 8, pixels: int = 2**18
) -> Capabilities:
    """Return the capabilities of a model with a square default size."""
    return Capabilities(
        pipeline_class="Toy",
        supported_parameters=(),
        defaults=Parameters(width=side_px, height=side_px),
        schedulers=(),
        limits=Limits(
            min_side_px=least,
            max_side_px=most,
            size_multiple_px=multiple,
            max_pixel_count=pixels,
            max_step_count=150,
            max_guidance_scale=20.0,
            max_image_count=8,
            max_prompt_token_count=None,
            max_prompt_character_count=1000,
        ),
        has_previews=True,
    )


SMALL = capable(128)
LARGE = capable(1024, least=256, most=2048, multiple=16, pixels=2 * MEGAPIXEL)


def shape(ratio: float | None = None, pixel_count: int | None = None) -> Shape:
    return Shape(field="aspect_ratio", text="it", ratio=ratio, pixel_count=pixel_count)


@pytest.mark.parametrize(
    ("model", "ratio", "pixel_count", "size"),
    [
        (SMALL, 1, None, (128, 128)),
        (SMALL, 16 / 9, None, (168, 96)),
        (SMALL, 9 / 16, None, (96, 168)),
        (SMALL, 7, None, (448, 64)),  # the shorter side is raised to the model's least
        (SMALL, None, 65536, (256, 256)),
        (SMALL, 4, 65536, (512, 128)),
        (LARGE, 1, MEGAPIXEL, (1024, 1024)),
        (LARGE, 16 / 9, None, (1360, 768)),
        (LARGE, 3 / 4, 1024 * 768, (768, 1024)),
        (LARGE, 16 / 9, 1024 * 576, (1024, 576)),
        (LARGE, 1, MEGAPIXEL // 4, (512, 512)),
        (capable(512), 2, None, (512, 256)),  # the longer side is cut to the model's most
        (capable(512, pixels=512 * 504, multiple=64), 1, None, (448, 512)),
    ],
)
def test_sides_are_multiples_within_the_limits(
    model: Capabilities, ratio: float | None, pixel_count: int | None, size: tuple[int, int]
) -> None:
    assert fit_shape(shape(ratio, pixel_count), model) == size


@pytest.mark.parametrize(
    ("fixed", "size"), [({"width": 128}, (128, 64)), ({"height": 100}, (200, 100))]
)
def test_one_side_gives_the_other(fixed: dict[str, Any], size: tuple[int, int]) -> None:
    assert fit_shape(shape(2), SMALL, **fixed) == size


@pytest.mark.parametrize(
    ("model", "ratio", "pixel_count"),
    [
        (SMALL, 20, None),
        (SMALL, 1, MEGAPIXEL),
        (SMALL, 1, 32 * 32),
        (LARGE, 2, 4 * MEGAPIXEL),
    ],
)
def test_what_the_model_cannot_make_is_refused_with_its_limits(
    model: Capabilities, ratio: float, pixel_count: int | None
) -> None:
    limits = model.limits
    with pytest.raises(GatewayError) as raised:
        fit_shape(shape(ratio, pixel_count), model)
    assert raised.value.status == 422
    assert raised.value.message.startswith("aspect_ratio: it would be ")
    assert f"from {limits.min_side_px} to {limits.max_side_px}" in raised.value.message


@pytest.mark.parametrize("ratio", [1e9, 1e-9])
def test_a_ratio_beyond_all_limits_is_refused_at_once(ratio: float) -> None:
    for model in (SMALL, LARGE):
        with pytest.raises(GatewayError, match="aspect_ratio: it would be "):
            fit_shape(shape(ratio), model)
        fixed = (None, 512) if ratio > 1 else (512, None)
        with pytest.raises(GatewayError, match="aspect_ratio: it would be "):
            fit_shape(shape(ratio), model, *fixed)


@pytest.mark.parametrize("multiple", [8, 16, 24, 64])
def test_every_ratio_is_made_or_refused(multiple: int) -> None:
    model = capable(256, most=520, multiple=multiple, pixels=300_000)
    least = -(-model.limits.min_side_px // multiple) * multiple
    for tenths in range(1, 200):
        try:
            width, height = fit_shape(shape(tenths / 10), model)
        except GatewayError:
            assert tenths < 20 or tenths > 50
            continue
        assert least <= min(width, height) <= max(width, height) <= 520
        assert width % multiple == height % multiple == 0
        assert width * height <= 300_000
