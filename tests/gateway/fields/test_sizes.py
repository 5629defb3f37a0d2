"""Sizes: every spelling, and what contradicts itself."""

from typing import Any

import pytest

from safelight_gateway.dialects.builtin import DIALECTS
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.errors import GatewayError
from safelight_gateway.fields.sizes import Size, read_size
from safelight_gateway.fields.values import Values

REGISTRY = DialectRegistry(DIALECTS)


def read(**fields: Any) -> Size:
    return read_size(Values(fields, REGISTRY))


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (None, None)),
        ({"size": "auto"}, (None, None)),
        ({"aspect_ratio": "auto"}, (None, None)),
        ({"width": 96}, (96, None)),
        ({"size": "96x64"}, (96, 64)),
        ({"image_size": "96 X 64"}, (96, 64)),
        ({"image_size": {"width": 96, "height": 64}}, (96, 64)),
        ({"target_size": {"width": 96, "height": 64}}, (96, 64)),
        ({"size": "96x64", "image_size": {"width": 96, "height": 64}}, (96, 64)),
        ({"size": "auto", "image_size": {"width": 96, "height": 64}}, (96, 64)),
        ({"size": "96x64", "width": 96}, (96, 64)),
        ({"aspect_ratio": "custom", "megapixels": "1", "width": 96, "height": 64}, (96, 64)),
        ({"aspect_ratio": "3:2", "width": 96, "height": 64}, (96, 64)),
        ({"aspect_ratio": "16:9", "size": "1344x768"}, (1344, 768)),
    ],
)
def test_exact_sizes(fields: dict[str, Any], size: tuple[int | None, int | None]) -> None:
    found = read(**fields)
    assert (found.width, found.height, found.shape) == (*size, None)


@pytest.mark.parametrize(
    ("fields", "field", "ratio", "pixel_count"),
    [
        ({"image_size": "landscape_4_3"}, "image_size", 4 / 3, 1024 * 768),
        ({"image_size": "square_hd", "aspect_ratio": "1:1"}, "image_size", 1, 1024 * 1024),
        ({"aspect_ratio": "16:9"}, "aspect_ratio", 16 / 9, None),
        ({"aspect_ratio": " 9 / 16 "}, "aspect_ratio", 9 / 16, None),
        ({"megapixels": "0.25"}, "megapixels", None, 512 * 512),
        ({"megapixels": 1, "aspect_ratio": "2:1"}, "megapixels", 2, 1024 * 1024),
        ({"aspect_ratio": "2:1", "width": 128}, "aspect_ratio", 2, None),
    ],
)
def test_sizes_that_depend_on_the_model(
    fields: dict[str, Any], field: str, ratio: float | None, pixel_count: int | None
) -> None:
    shape = read(**fields).shape
    assert shape is not None
    assert (shape.field, shape.ratio, shape.pixel_count) == (field, ratio, pixel_count)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": "1x"}, "size: must be auto, WIDTHxHEIGHT"),
        ({"image_size": "huge"}, "image_size: must be .* square_hd"),
        ({"image_size": {"width": 96}}, "image_size: must be"),
        ({"image_size": {"width": "a", "height": 1}}, r"image_size\.width: must be an integer"),
        ({"aspect_ratio": "wide"}, "aspect_ratio: must be WIDTH:HEIGHT"),
        ({"aspect_ratio": "0:9"}, "aspect_ratio: must be"),
        ({"aspect_ratio": "9:0"}, "aspect_ratio: must be"),
        ({"aspect_ratio": "match_input_image"}, "aspect_ratio: must be"),
        ({"megapixels": "match_input"}, "megapixels: must be a number"),
        ({"megapixels": 0}, "megapixels: must be"),
        ({"megapixels": "nan"}, "megapixels: must be"),
        ({"size": "96x64", "width": 64}, "width: contradicts size"),
        ({"image_size": "square", "height": 64}, "height: contradicts image_size"),
        ({"size": "96x64", "image_size": "64x64"}, "image_size: says something else than size"),
        ({"aspect_ratio": "16:9", "width": 64, "height": 64}, "aspect_ratio: contradicts width"),
        ({"aspect_ratio": "16:9", "size": "64x64"}, "aspect_ratio: contradicts size"),
        ({"aspect_ratio": "16:9", "image_size": "square"}, "aspect_ratio: contradicts image_size"),
        ({"megapixels": "1", "size": "64x64"}, "megapixels: contradicts size"),
        ({"megapixels": "1", "width": 64}, "megapixels: contradicts width"),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GatewayError, match=message) as raised:
        read(**fields)
    assert raised.value.status == 422
