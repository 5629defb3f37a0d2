"""Prompts: the fixed evaluation set, with combinations and wordings absent from training."""

import itertools
import random
from dataclasses import dataclass

from training.scenes.scene import (
    COLOURS,
    POSITIONS,
    RADII,
    SCENERIES,
    SHAPES,
    is_held_out,
    unsaid_background,
)

COUNT = 240
PAIR_COUNT = 120

# No training caption has these wordings.
_WORDINGS = (
    "{thing} {background}",
    "there should be {thing} {background}",
    "{background} we see {thing}",
    "Could you paint {thing} {background}?",
    "{thing}, and it is {background}",
)
_PLAIN = ("on a {} background", "on {}", "on a plain {} wall", "with {} behind it")
_SCENIC = {
    "night": ("at night", "in the dark night"),
    "grass": ("on grass", "lying on the grass"),
    "sunset": ("at sunset", "during the sunset"),
    "snow": ("in the snow", "out in the snow"),
    "desert": ("in the desert", "in the hot desert"),
    "sea": ("under water", "deep in the sea"),
}
_SIZES = {"small": ("small", "tiny"), "medium": ("",), "large": ("large", "big")}
_POSITIONS = {name: "in the centre" if name == "centre" else f"at the {name}" for name in POSITIONS}

_RELATIONS = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left": ("to the left of", "left of"),
    "right": ("to the right of", "right of"),
}

# Colours that hardly differ from the scenery behind them.
_INVISIBLE = {("black", "night"), ("white", "snow"), ("turquoise", "sea")}


@dataclass(frozen=True)
class Prompt:
    """Prompt, and the expected content of its picture."""

    text: str
    shape: str
    colour: str
    background: str


@dataclass(frozen=True)
class PairPrompt:
    """Prompt of two things, and the expected content, with the upper or left one first."""

    text: str
    shapes: tuple[str, str]
    colours: tuple[str, str]
    is_upright: bool
    """Whether the things are above each other rather than side by side."""
    background: str


def evaluation_prompts() -> list[Prompt]:
    """Return a prompt for each held-out combination, some in two wordings.

    A combination is a colour, a shape and a background.
    """
    rng = random.Random(2024)
    combinations = []
    for colour in COLOURS:
        plain = [name for name in COLOURS if name != colour]
        for background in (*plain, *SCENERIES, unsaid_background((colour,))):
            for shape in SHAPES:
                is_visible = (colour, background) not in _INVISIBLE
                if is_visible and is_held_out(colour, shape, background):
                    combinations.append((colour, shape, background))
    rng.shuffle(combinations)
    return [
        Prompt(_word(colour, shape, background, rng), shape, colour, background)
        for colour, shape, background in itertools.islice(itertools.cycle(combinations), COUNT)
    ]


def evaluation_pairs() -> list[PairPrompt]:
    """Return prompts of two things in two colours on a plain background, at least one held out."""
    rng = random.Random(2025)
    prompts: list[PairPrompt] = []
    relations = itertools.cycle(_RELATIONS)
    while len(prompts) < PAIR_COUNT:
        first, second, behind = rng.sample(tuple(COLOURS), 3)
        said = rng.random() < 0.5
        background = behind if said else unsaid_background((first, second))
        colours, shapes = (first, second), (rng.choice(SHAPES), rng.choice(SHAPES))
        if not any(map(is_held_out, colours, shapes, (background, background))):
            continue
        relation = next(relations)
        things = [_name("", colour, shape) for colour, shape in zip(colours, shapes, strict=True)]
        pair = f"{things[0]} {rng.choice(_RELATIONS[relation])} {things[1]}"
        text = _put(pair, rng.choice(_PLAIN).format(behind) if said else "", rng)
        if relation in ("below", "right"):
            colours, shapes = colours[::-1], shapes[::-1]
        is_upright = relation in ("above", "below")
        prompts.append(PairPrompt(text, shapes, colours, is_upright, background))
    return prompts


def _word(colour: str, shape: str, background: str, rng: random.Random) -> str:
    size = rng.choice(_SIZES[rng.choice(tuple(RADII))])
    thing = _name(size, colour, shape)
    if rng.random() < 0.4:
        thing += " " + _POSITIONS[rng.choice(tuple(POSITIONS))]
    if background in SCENERIES:
        behind = rng.choice(_SCENIC[background])
    elif background in COLOURS:
        behind = rng.choice(_PLAIN).format(background)
    else:
        behind = ""
    return _put(thing, behind, rng)


def _name(size: str, colour: str, shape: str) -> str:
    words = [word for word in (size, colour, shape) if word]
    return " ".join(["an" if words[0][0] in "aeiou" else "a", *words])


def _put(subject: str, background: str, rng: random.Random) -> str:
    wording = _WORDINGS[0] if not background else rng.choice(_WORDINGS)
    return wording.format(thing=subject, background=background).strip()
