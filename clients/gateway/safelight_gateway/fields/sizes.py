"""Sizes: reads width, height, sizes by name, aspect ratios and megapixels."""

import re
from dataclasses import dataclass
from typing import Any

from safelight_gateway.dialects.dialect import Parameter
from safelight_gateway.errors import invalid_field
from safelight_gateway.fields.rules import is_empty
from safelight_gateway.fields.values import Values, integer, number, shown
from safelight_gateway.generation.shape import Shape

_NAMED_SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
_SIZE_TEXT = re.compile(r"(\d{1,5}) *[xX*] *(\d{1,5})", re.ASCII)
_RATIO_TEXT = re.compile(r"(\d{1,4}(?:\.\d{1,4})?) *[:/] *(\d{1,4}(?:\.\d{1,4})?)", re.ASCII)
_MODEL_CHOOSES = ("auto", "")
_CUSTOM = "custom"
"""Aspect ratio that leaves the size to width and height."""

_PIXELS_PER_MEGAPIXEL = 1024 * 1024
_RATIO_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size that a body asks for.

    Attributes:
        width: Width in pixels, exactly.
        height: Height in pixels, exactly.
        shape: A ratio or an area, to be fitted to the model.
        field: Name of the field that held width and height together; None if they were apart.
    """

    width: int | None = None
    height: int | None = None
    shape: Shape | None = None
    field: str | None = None


def read_size(values: Values) -> Size:
    """Read the size.

    Raises:
        GatewayError: a value is invalid, or fields contradict each other.
    """
    size = _read_combined(values)
    width, height = values.read("width", integer), values.read("height", integer)
    if width is not None or height is not None:
        whole = (size.width, size.height)
        apart = (
            whole[0] if width is None else width,
            whole[1] if height is None else height,
        )
        if size.shape is not None or (size.width is not None and apart != whole):
            own = values.names.get("width") or values.names["height"]
            raise invalid_field(own, f"contradicts {values.names['size']}; send one of them")
        size = Size(width=apart[0], height=apart[1])
    return _add_ratio(size, values)


def _read_combined(values: Values) -> Size:
    sides = values.read("size", _parse_size)
    if sides is None:
        return Size()
    width, height, name = sides
    field = values.names["size"]
    if not name:
        return Size(width=width, height=height, field=field)
    ratio, pixel_count = width / height, width * height
    shape = Shape(field=field, text=name, ratio=ratio, pixel_count=pixel_count)
    return Size(shape=shape, field=field)


def _add_ratio(size: Size, values: Values) -> Size:
    """Combine the size with aspect ratio and megapixels."""
    ratio_text = values.read("aspect_ratio", _parse_ratio_text) or ""
    megapixels = values.read("megapixels", _parse_megapixels)
    has_size = size.width is not None and size.height is not None
    if ratio_text == _CUSTOM or not (ratio_text or megapixels):
        return size
    ratio = _ratio_of(ratio_text) if ratio_text else None
    field: Parameter = "aspect_ratio" if ratio_text else "megapixels"
    name = values.names[field]
    if has_size or size.shape is not None:
        own = size.shape.ratio if size.shape else (size.width or 0) / (size.height or 1)
        if megapixels or ratio is None or own is None or abs(own / ratio - 1) > _RATIO_TOLERANCE:
            given = size.field or values.names.get("width") or "width"
            raise invalid_field(name, f"contradicts {given}; send one of them")
        return size
    if megapixels and (size.width or size.height):
        given = values.names.get("width") or values.names["height"]
        raise invalid_field(values.names["megapixels"], f"contradicts {given}; send one of them")
    pixel_count = round(megapixels * _PIXELS_PER_MEGAPIXEL) if megapixels else None
    if pixel_count:
        name = values.names["megapixels"]
    parts = (f"{megapixels:g}" if megapixels else "", ratio_text)
    shown_text = " at ".join(part for part in parts if part)
    shape = Shape(field=name, text=shown_text, ratio=ratio, pixel_count=pixel_count)
    return Size(width=size.width, height=size.height, shape=shape)


def _parse_size(name: str, value: Any) -> tuple[int, int, str] | None:
    """Return both sides, and the name of a named size; None where the model chooses."""
    match value:
        case {"width": width, "height": height, **rest} if all(map(is_empty, rest.values())):
            return integer(f"{name}.width", width), integer(f"{name}.height", height), ""
        case str() if value in _MODEL_CHOOSES:
            return None
        case str() if value in _NAMED_SIZES:
            return (*_NAMED_SIZES[value], value)
        case str() if match := _SIZE_TEXT.fullmatch(value.strip()):
            return int(match[1]), int(match[2]), ""
    allowed = f"auto, WIDTHxHEIGHT, {{width, height}} or one of {', '.join(_NAMED_SIZES)}"
    raise invalid_field(name, f"must be {allowed}, not {shown(value)}")


def _parse_ratio_text(name: str, value: Any) -> str | None:
    """Return a ratio such as 16:9, `custom`, or None where the model chooses."""
    if isinstance(value, str):
        ratio_text = value.strip().lower()
        if ratio_text in _MODEL_CHOOSES:
            return None
        if ratio_text == _CUSTOM:
            return _CUSTOM
        if _RATIO_TEXT.fullmatch(ratio_text) and _ratio_of(ratio_text) > 0:
            return ratio_text
    raise invalid_field(name, f"must be WIDTH:HEIGHT such as 16:9, or custom, not {shown(value)}")


def _ratio_of(ratio_text: str) -> float:
    match = _RATIO_TEXT.fullmatch(ratio_text)
    assert match is not None
    width, height = float(match[1]), float(match[2])
    return width / height if height else 0.0


def _parse_megapixels(name: str, value: Any) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if value is None or not 0 < number(name, value) <= 100:
        raise invalid_field(name, "must be a number of megapixels such as 1 or 0.25")
    return float(value)
