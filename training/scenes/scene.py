"""Scene: one or two coloured shapes on a background, for the model to draw."""

import random
import zlib
from dataclasses import dataclass

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (250, 222, 50),
    "green": (45, 160, 70),
    "turquoise": (60, 205, 210),
    "blue": (40, 85, 220),
    "purple": (130, 55, 180),
    "pink": (250, 150, 195),
    "brown": (125, 75, 40),
    "black": (22, 22, 25),
    "white": (248, 248, 248),
    "grey": (140, 140, 145),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "diamond")
SCENERIES = ("night", "grass", "sunset", "snow", "desert", "sea")

# Backgrounds when the caption names none: paper, or slate behind something white.
PAPER, SLATE = "paper", "slate"
UNSAID: dict[str, Rgb] = {PAPER: (236, 232, 222), SLATE: (88, 104, 126)}
PLAIN: dict[str, Rgb] = COLOURS | UNSAID

# Half extents as fractions of the shorter side: of a single thing, and of one in a pair.
RADII = {"small": 0.14, "medium": 0.23, "large": 0.35}
PAIR_RADII = {"small": 0.11, "medium": 0.165, "large": 0.22}

# Centres as fractions of width and height.
POSITIONS: dict[str, tuple[float, float]] = {
    "centre": (0.5, 0.5),
    "top": (0.5, 0.24),
    "bottom": (0.5, 0.76),
    "left": (0.24, 0.5),
    "right": (0.76, 0.5),
    "top left": (0.24, 0.24),
    "top right": (0.76, 0.24),
    "bottom left": (0.24, 0.76),
    "bottom right": (0.76, 0.76),
}

# Centres of the first and the second thing of a pair, by relation.
RELATIONS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
    "left": ((0.27, 0.5), (0.73, 0.5)),
    "right": ((0.73, 0.5), (0.27, 0.5)),
}

# Training never sees one in this many combinations of colour, shape and background.
HELD_OUT_ONE_IN = 8


@dataclass(frozen=True)
class Thing:
    """Coloured shape, with centre and radius in pixels."""

    shape: str
    colour: str
    size: str
    position: str
    centre_x: float
    centre_y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """Things on a background, whose stars, flakes and bubbles `seed` places."""

    things: tuple[Thing, ...]
    relation: str | None
    background: str
    width: int
    height: int
    seed: int

    @property
    def is_held_out(self) -> bool:
        """Whether training must never see this scene."""
        return any(is_held_out(t.colour, t.shape, self.background) for t in self.things)


def is_held_out(colour: str, shape: str, background: str) -> bool:
    """Whether a combination is kept for evaluation, at any size and position."""
    key = f"{colour} {shape} {background}".encode()
    return zlib.crc32(key) % HELD_OUT_ONE_IN == 0


def unsaid_background(colours: tuple[str, ...]) -> str:
    """Return the background behind things of these colours when a caption names none."""
    return SLATE if "white" in colours else PAPER


def place(
    shape: str,
    colour: str,
    size: str,
    position: str,
    width: int,
    height: int,
    rng: random.Random | None = None,
) -> Thing:
    """Place a single thing at a named position, slightly jittered if `rng` is given."""
    radius = RADII[size] * min(width, height) * _jitter(rng, 0.07)
    x, y = (fraction + _offset(rng, 0.02) for fraction in POSITIONS[position])
    return _thing(shape, colour, size, position, x * width, y * height, radius, width, height)


def place_pair(
    kinds: tuple[tuple[str, str, str], tuple[str, str, str]],
    relation: str,
    width: int,
    height: int,
    rng: random.Random | None = None,
) -> tuple[Thing, Thing]:
    """Place two things, given as (shape, colour, size), the first `relation` the second."""
    first, second = (
        _thing(
            shape,
            colour,
            size,
            "centre",
            (x + _offset(rng, 0.02)) * width,
            (y + _offset(rng, 0.02)) * height,
            PAIR_RADII[size] * min(width, height) * _jitter(rng, 0.07),
            width,
            height,
        )
        for (shape, colour, size), (x, y) in zip(kinds, RELATIONS[relation], strict=True)
    )
    return first, second


def draw_scene(rng: random.Random, width: int, height: int, pair_share: float = 0.22) -> Scene:
    """Draw a random scene that is not held out."""
    while True:
        scene = _draw(rng, width, height, pair_share)
        if not scene.is_held_out:
            return scene


def _draw(rng: random.Random, width: int, height: int, pair_share: float) -> Scene:
    colours = tuple(COLOURS)
    is_pair = rng.random() < pair_share
    chosen = tuple(rng.choice(colours) for _ in range(2 if is_pair else 1))
    background = _draw_background(rng, chosen)
    sizes = rng.choices(tuple(RADII), (0.27, 0.46, 0.27), k=2)
    shapes = rng.choices(SHAPES, k=2)
    things: tuple[Thing, ...]
    relation = None
    if is_pair:
        relation = rng.choice(tuple(RELATIONS))
        kinds = ((shapes[0], chosen[0], sizes[0]), (shapes[1], chosen[1], sizes[1]))
        things = place_pair(kinds, relation, width, height, rng)
    else:
        position = rng.choice(tuple(POSITIONS)) if rng.random() < 0.5 else "centre"
        things = (place(shapes[0], chosen[0], sizes[0], position, width, height, rng),)
    return Scene(things, relation, background, width, height, rng.randrange(1 << 30))


def _draw_background(rng: random.Random, colours: tuple[str, ...]) -> str:
    kind = rng.random()
    if kind < 0.28:
        return unsaid_background(colours)
    if kind < 0.52:
        return rng.choice(SCENERIES)
    return rng.choice([name for name in COLOURS if name not in colours])


def _thing(
    shape: str,
    colour: str,
    size: str,
    position: str,
    x: float,
    y: float,
    radius: float,
    width: int,
    height: int,
) -> Thing:
    # Pushed inwards, so that the border cuts nothing off.
    x = min(max(x, radius + 2), width - radius - 2)
    y = min(max(y, radius + 2), height - radius - 2)
    return Thing(shape, colour, size, position, x, y, radius)


def _jitter(rng: random.Random | None, share: float) -> float:
    return 1.0 if rng is None else rng.uniform(1 - share, 1 + share)


def _offset(rng: random.Random | None, share: float) -> float:
    return 0.0 if rng is None else rng.uniform(-share, share)
