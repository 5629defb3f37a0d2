"""Rasteriser: scenes to pictures and shapes to masks, by signed distances."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from training.scenes import scenery
from training.scenes.scene import COLOURS, PLAIN, SHAPES, Scene


def distance(shape: str, x: Tensor, y: Tensor) -> Tensor:
    """Return the signed distance to a shape of half extent 1 at the origin.

    Negative inside; y points down. Exact near the outline, as antialiasing needs.
    """
    match shape:
        case "circle":
            return torch.hypot(x, y) - 0.95
        case "square":
            return torch.maximum(x.abs(), y.abs()) - 0.84
        case "triangle":
            # Sides from (0, -1) to (+-1, 0.8), and the base.
            slanted = (1.8 * x.abs() - (y + 1)) / math.hypot(1.8, 1)
            return torch.maximum(slanted, y - 0.8)
        case "star":
            return _star(x, y)
        case "heart":
            return _heart(x, y)
        case "ring":
            return (torch.hypot(x, y) - 0.72).abs() - 0.24
        case "cross":
            across = torch.maximum(x.abs() - 0.95, y.abs() - 0.3)
            upright = torch.maximum(x.abs() - 0.3, y.abs() - 0.95)
            return torch.minimum(across, upright)
        case "diamond":
            return (x.abs() / 0.75 + y.abs() - 1) / math.hypot(1 / 0.75, 1)
    raise ValueError(f"shape must be one of {', '.join(SHAPES)}, not {shape}")


def _star(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to a star: five points of radius 1, inner radius 0.42, one point up."""
    sector = math.pi / 5
    angle = torch.remainder(torch.atan2(x, -y), 2 * sector)
    angle = torch.minimum(angle, 2 * sector - angle)
    radius = torch.hypot(x, y - 0.05)
    px, py = radius * torch.cos(angle), radius * torch.sin(angle)
    inner_x, inner_y = 0.42 * math.cos(sector), 0.42 * math.sin(sector)
    # The edge runs from the tip (1, 0) to the inner corner.
    edge_x, edge_y = inner_x - 1, inner_y
    return ((px - 1) * -edge_y + py * edge_x) / -math.hypot(edge_x, edge_y)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """Return the distance to a heart: two discs over a wedge with its point at the bottom."""
    lobes = torch.hypot(x.abs() - 0.46, y + 0.36) - 0.5
    # The sides of the wedge are tangents to the discs, from the point (0, 0.95).
    reach = math.hypot(0.46, 1.31)
    lean = math.atan2(0.46, 1.31) + math.asin(0.5 / reach)
    side = x.abs() * math.cos(lean) - (0.95 - y) * math.sin(lean)
    # Cut the wedge at the height of the tangent points, so that the notch stays open.
    touch = 0.95 - math.sqrt(reach**2 - 0.25) * math.cos(lean)
    wedge = torch.maximum(side, touch - y)
    notch = torch.maximum(torch.maximum(x.abs() - 0.46, -0.36 - y), side)
    return torch.minimum(torch.minimum(lobes, wedge), notch)


def coverage(
    shape: str, centre_x: Tensor, centre_y: Tensor, radius: Tensor, width: int, height: int
) -> Tensor:
    """Return antialiased masks of one shape: (batch, height, width), in [0, 1].

    Centres and radii are in pixels, each (batch,).
    """
    xs = torch.arange(width) + 0.5
    ys = torch.arange(height) + 0.5
    r = radius.view(-1, 1, 1)
    x = (xs.view(1, 1, -1) - centre_x.view(-1, 1, 1)) / r
    y = (ys.view(1, -1, 1) - centre_y.view(-1, 1, 1)) / r
    return (0.5 - distance(shape, x, y) * r).clamp(0, 1)


def mask(
    shape: str, centre_x: float, centre_y: float, radius: float, width: int, height: int
) -> Tensor:
    """Return the antialiased mask of one shape: (height, width), in [0, 1]."""
    x, y, r = (torch.tensor([value]) for value in (centre_x, centre_y, radius))
    return coverage(shape, x, y, r, width, height)[0]


def render(scenes: Sequence[Scene]) -> Tensor:
    """Draw scenes of one size: (batch, 3, height, width), in [-1, 1]."""
    width, height = scenes[0].width, scenes[0].height
    picture = torch.empty(len(scenes), 3, height, width)
    for name in {scene.background for scene in scenes}:
        members = [i for i, scene in enumerate(scenes) if scene.background == name]
        if name in PLAIN:
            picture[members] = rgb(PLAIN[name]).view(1, 3, 1, 1)
        else:
            seeds = [scenes[i].seed for i in members]
            picture[members] = scenery.paint(name, seeds, width, height)
    for order in range(max(len(scene.things) for scene in scenes)):
        for shape in SHAPES:
            members = [
                i
                for i, scene in enumerate(scenes)
                if order < len(scene.things) and scene.things[order].shape == shape
            ]
            if not members:
                continue
            things = [scenes[i].things[order] for i in members]
            covered = coverage(
                shape,
                torch.tensor([t.centre_x for t in things]),
                torch.tensor([t.centre_y for t in things]),
                torch.tensor([t.radius for t in things]),
                width,
                height,
            ).unsqueeze(1)
            colour = torch.stack([rgb(COLOURS[t.colour]) for t in things]).view(-1, 3, 1, 1)
            picture[members] = torch.lerp(picture[members], colour, covered)
    return picture * 2 - 1


def rgb(colour: tuple[int, int, int]) -> Tensor:
    """Convert a colour to a tensor: (3,), in [0, 1]."""
    return torch.tensor(colour, dtype=torch.float32) / 255
