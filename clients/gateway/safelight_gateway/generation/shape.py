"""The shape of an image: a ratio or an area that is fitted to a model's limits."""

import math
from dataclasses import dataclass

from safelight.models import Capabilities

from safelight_gateway.errors import GatewayError, invalid_field

_MAX_SIDE_PX = 2**31 - 1
"""Longest side that the contract's type holds; the service checks the model's limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A size that depends on the model. Sides are rounded to the model's multiple.

    Attributes:
        field: Name of the caller's field, for errors.
        text: Value of the field, for errors.
        ratio: Width divided by height; None for that of the model's default size.
        pixel_count: Area in pixels; None for that of the model's default size, or less where a
            side would be too long.
    """

    field: str
    text: str
    ratio: float | None = None
    pixel_count: int | None = None


def fit_shape(
    shape: Shape, capabilities: Capabilities, width: int | None = None, height: int | None = None
) -> tuple[int, int]:
    """Return width and height in pixels.

    Args:
        shape: The shape.
        capabilities: Limits and default size of the model.
        width: Width that the caller fixed; the height follows from the ratio.
        height: Height that the caller fixed.

    Raises:
        GatewayError: the model makes no images of this shape.
    """
    limits, defaults = capabilities.limits, capabilities.defaults
    default_width, default_height = defaults.width or 1, defaults.height or 1
    multiple = limits.size_multiple_px
    ratio = shape.ratio or default_width / default_height
    least = math.ceil(limits.min_side_px / multiple) * multiple
    most = limits.max_side_px // multiple * multiple
    if width is not None or height is not None:
        fixed_width = width if width is not None else _round((height or 0) * ratio, multiple)
        fixed_height = height if height is not None else _round((width or 0) / ratio, multiple)
        if max(fixed_width, fixed_height) > _MAX_SIDE_PX:
            raise _misfit(shape, (fixed_width, fixed_height), least, most, limits.max_pixel_count)
        return fixed_width, fixed_height
    area = shape.pixel_count or default_width * default_height
    ideal_width, ideal_height = math.sqrt(area * ratio), math.sqrt(area / ratio)
    if shape.pixel_count is None:
        scale = min(1.0, most / max(ideal_width, ideal_height))
        scale = max(scale, least / min(ideal_width, ideal_height))
        ideal_width, ideal_height = ideal_width * scale, ideal_height * scale
    sides = _round(ideal_width, multiple), _round(ideal_height, multiple)
    if shape.pixel_count is None and max(sides) <= most:
        sides = _shrink(*sides, limits.max_pixel_count, multiple)
    if min(sides) < least or max(sides) > most or sides[0] * sides[1] > limits.max_pixel_count:
        raise _misfit(shape, sides, least, most, limits.max_pixel_count)
    return sides


def _round(side: float, multiple: int) -> int:
    """Round to the nearest multiple, at least one."""
    return max(1, math.floor(side / multiple + 0.5)) * multiple


def _shrink(width: int, height: int, max_pixel_count: int, multiple: int) -> tuple[int, int]:
    """Take from the longer side what rounding has added beyond the limit."""
    while width * height > max_pixel_count and max(width, height) > multiple:
        if width >= height:
            width -= multiple
        else:
            height -= multiple
    return width, height


def _misfit(
    shape: Shape, sides: tuple[int, int], least: int, most: int, max_pixel_count: int
) -> GatewayError:
    return invalid_field(
        shape.field,
        f"{shape.text} would be {sides[0]} x {sides[1]} pixels, but this model's sides have from "
        f"{least} to {most}, and their product at most {max_pixel_count}",
    )
