"""Scenery: the backgrounds night, grass, sunset, snow, desert and sea."""

import itertools
import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def paint(name: str, seeds: Sequence[int], width: int, height: int) -> Tensor:
    """Paint backgrounds of one kind, with details placed by seed.

    Returns (batch, 3, height, width), in [0, 1].
    """
    canvas = _Canvas(seeds, width, height)
    _PAINTERS[name](canvas)
    return canvas.picture


class _Canvas:
    """Batch of pictures, with the brushes of the painters below."""

    def __init__(self, seeds: Sequence[int], width: int, height: int) -> None:
        self.rngs = [random.Random(seed) for seed in seeds]
        self.picture = torch.zeros(len(seeds), 3, height, width)
        self.side = min(width, height)
        self.x = (torch.arange(width) + 0.5).view(1, 1, 1, -1)
        self.y = (torch.arange(height) + 0.5).view(1, 1, -1, 1)
        self.width, self.height = width, height

    def gradient(self, *stops: tuple[float, tuple[int, int, int]]) -> None:
        """Paint a vertical gradient through stops of (height fraction, colour)."""
        y = self.y / self.height
        self.picture[:] = _rgb(stops[0][1])
        for (start, _), (end, colour) in itertools.pairwise(stops):
            share = ((y - start) / (end - start)).clamp(0, 1)
            self.picture = torch.lerp(self.picture, _rgb(colour), share)

    def ground(self, level: float, colour: tuple[int, int, int], wave: float = 0.0) -> None:
        """Paint ground below a height fraction; `wave` is the height of its dunes."""
        phase = self.draw(0.0, 6.28)
        horizon = level + wave * torch.sin(self.x / self.width * 6.28 + phase)
        share = (self.y - horizon * self.height + 0.5).clamp(0, 1)
        self.picture = torch.lerp(self.picture, _rgb(colour), share)

    def discs(
        self,
        count: int,
        colour: tuple[int, int, int],
        radius: tuple[float, float],
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        """Paint discs at random places; radii are fractions of the shorter side."""
        for _ in range(count):
            across = self.x - self.draw(*x) * self.width
            down = self.y - self.draw(*y) * self.height
            reach = self.draw(*radius) * self.side
            share = (0.5 - torch.hypot(across, down) + reach).clamp(0, 1)
            self.picture = torch.lerp(self.picture, _rgb(colour), share)

    def draw(self, low: float, high: float) -> Tensor:
        """Draw a random number for each picture: (batch, 1, 1, 1)."""
        return torch.tensor([rng.uniform(low, high) for rng in self.rngs]).view(-1, 1, 1, 1)


def _night(canvas: _Canvas) -> None:
    canvas.gradient((0.0, (10, 14, 44)), (1.0, (32, 38, 84)))
    canvas.discs(9, (235, 235, 245), (0.010, 0.016), y=(0.0, 0.9))
    canvas.discs(1, (244, 236, 190), (0.075, 0.085), x=(0.84, 0.88), y=(0.12, 0.16))


def _grass(canvas: _Canvas) -> None:
    canvas.gradient((0.0, (130, 195, 245)), (0.6, (185, 222, 248)))
    canvas.ground(0.62, (96, 178, 62))


def _sunset(canvas: _Canvas) -> None:
    canvas.gradient((0.0, (84, 48, 122)), (0.45, (226, 98, 84)), (0.82, (252, 192, 92)))
    canvas.ground(0.82, (64, 36, 54))


def _snow(canvas: _Canvas) -> None:
    canvas.gradient((0.0, (158, 180, 208)), (0.6, (196, 210, 228)))
    canvas.ground(0.62, (240, 245, 252), wave=0.015)
    canvas.discs(9, (248, 250, 255), (0.012, 0.018), y=(0.0, 0.6))


def _desert(canvas: _Canvas) -> None:
    canvas.gradient((0.0, (140, 200, 228)), (0.6, (236, 226, 196)))
    canvas.ground(0.58, (222, 180, 108), wave=0.03)
    canvas.ground(0.8, (204, 156, 86), wave=0.03)


def _sea(canvas: _Canvas) -> None:
    canvas.gradient((0.0, (72, 178, 206)), (1.0, (8, 52, 112)))
    canvas.discs(7, (150, 214, 230), (0.012, 0.022))


_PAINTERS: dict[str, Callable[[_Canvas], None]] = {
    "night": _night,
    "grass": _grass,
    "sunset": _sunset,
    "snow": _snow,
    "desert": _desert,
    "sea": _sea,
}


def _rgb(colour: tuple[int, int, int]) -> Tensor:
    return (torch.tensor(colour, dtype=torch.float32) / 255).view(1, 3, 1, 1)
