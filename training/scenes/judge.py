"""Judge: the shape, colour and background of a picture, from its pixels alone."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.scenes.render import coverage, mask, render, rgb
from training.scenes.scene import COLOURS, PLAIN, SCENERIES, SHAPES, Scene

# A thing with less overlap with every shape counts as none of them.
LEAST_OVERLAP = 0.6
# Least difference of a pixel from the background, in its most different channel, of range 1.
CONTRAST = 0.1
LEAST_PIXELS = 40
BORDER_PX = 4
MARGIN_PX = 4


@dataclass(frozen=True)
class Verdict:
    """Recognised properties. `shape` is None if none fits; `overlap` is the best, in [0, 1]."""

    shape: str | None
    colour: str | None
    background: str
    overlap: float


def judge(picture: Tensor) -> Verdict:
    """Judge a picture of one thing: (3, height, width), in [0, 1]."""
    background = find_background(picture)
    behind = _behind(picture)
    palette = torch.stack([rgb(colour) for colour in COLOURS.values()]).view(-1, 3, 1, 1)
    nearest = torch.cat([palette - picture, (behind - picture)[None]]).norm(dim=1).argmin(0)
    contrasts = (picture - behind).abs().amax(0) > CONTRAST
    best, best_score = Verdict(None, None, background, 0.0), 0.0
    for number, colour in enumerate(COLOURS):
        region = (nearest == number) & contrasts
        if region.sum() < LEAST_PIXELS:
            continue
        region = largest_component(region)
        pixels = int(region.sum())
        if pixels < LEAST_PIXELS:
            continue
        shape, overlap = fit_shape(region)
        # Includes the size, so that a moon or a dune does not win over an imperfect thing.
        score = overlap * pixels**0.5
        if score > best_score:
            seen = shape if overlap >= LEAST_OVERLAP else None
            best, best_score = Verdict(seen, colour, background, overlap), score
    return best


def judge_pair(picture: Tensor, is_upright: bool) -> tuple[Verdict, Verdict]:
    """Judge the halves of a picture of two things: upper and lower, or left and right.

    Each verdict has the background of its half, so only plain backgrounds are right.
    """
    first, second = picture.chunk(2, dim=1 if is_upright else 2)
    return judge(first), judge(second)


def find_background(picture: Tensor) -> str:
    """Return the background with the nearest border, for a picture (3, height, width) in [0, 1]."""
    height, width = picture.shape[1:]
    names = (*PLAIN, *SCENERIES)
    bare = render([Scene((), None, name, width, height, 0) for name in names])
    differences = (_border((bare + 1) / 2) - _border(picture[None])).norm(dim=1)
    # The median ignores a thing, a star or a flake at the border.
    return names[int(differences.median(dim=1).values.argmin())]


def fit_shape(region: Tensor) -> tuple[str, float]:
    """Fit position and scale of each shape; return the best shape and its overlap.

    The region is (height, width), bool; the overlap is intersection over union.
    """
    # Fitted shapes hardly reach beyond the region, so crop to it.
    rows, columns = region.any(1).nonzero().flatten(), region.any(0).nonzero().flatten()
    region = functional.pad(
        region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], (MARGIN_PX,) * 4
    )
    height, width = region.shape
    left, right, top, bottom = MARGIN_PX, width - MARGIN_PX, MARGIN_PX, height - MARGIN_PX
    best_shape, best_overlap = SHAPES[0], 0.0
    for shape, (low_x, high_x, low_y, high_y) in _EXTENTS.items():
        # Scales between those of the two sides of the bounding box, and slightly beyond.
        across, down = (right - left) / (high_x - low_x), (bottom - top) / (high_y - low_y)
        scales = torch.linspace(min(across, down) * 0.95, max(across, down) * 1.05, 5)
        shifts = torch.tensor([-0.04, 0.0, 0.04])
        radius, shift_x, shift_y = (
            grid.flatten() for grid in torch.meshgrid(scales, shifts, shifts, indexing="ij")
        )
        centre_x = (left + right) / 2 - radius * ((low_x + high_x) / 2 + shift_x)
        centre_y = (top + bottom) / 2 - radius * ((low_y + high_y) / 2 + shift_y)
        fits = coverage(shape, centre_x, centre_y, radius, width, height) > 0.5
        both = (fits & region).sum((1, 2))
        either = (fits | region).sum((1, 2))
        overlap = (both / either).max().item()
        if overlap > best_overlap:
            best_shape, best_overlap = shape, overlap
    return best_shape, best_overlap


def largest_component(region: Tensor) -> Tensor:
    """Return the largest connected part of a region: (height, width), bool."""
    height, width = region.shape
    labels = torch.arange(1, height * width + 1, dtype=torch.float32).view(1, 1, height, width)
    inside = region[None, None]
    labels = labels * inside
    while True:
        spread = functional.max_pool2d(labels, 3, stride=1, padding=1) * inside
        if torch.equal(spread, labels):
            break
        labels = spread
    counts = labels[inside].long().bincount()
    if not len(counts):
        return region
    largest: Tensor = labels[0, 0] == counts.argmax()
    return largest


def _behind(picture: Tensor) -> Tensor:
    """Return the background's colour by row, from both ends of the row: (3, height, 1)."""
    ends = torch.cat([picture[..., :BORDER_PX], picture[..., -BORDER_PX:]], dim=-1)
    return ends.median(dim=-1, keepdim=True).values


def _border(pictures: Tensor) -> Tensor:
    """Return the outermost pixels: (batch, 3, count)."""
    parts = (
        pictures[..., :BORDER_PX, :],
        pictures[..., -BORDER_PX:, :],
        pictures[..., :BORDER_PX],
        pictures[..., -BORDER_PX:],
    )
    return torch.cat([part.flatten(2) for part in parts], dim=2)


def _extent(shape: str) -> tuple[float, float, float, float]:
    """Return the bounding box of a shape of half extent 1: left, right, top, bottom."""
    inside = mask(shape, 100, 100, 80, 200, 200) > 0.5
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    edges = (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)
    left, right, top, bottom = ((edge.item() - 100) / 80 for edge in edges)
    return left, right, top, bottom


_EXTENTS = {shape: _extent(shape) for shape in SHAPES}
