"""Captions: many wordings for a scene or for a part of it."""

import random
from dataclasses import dataclass

from training.scenes.scene import SCENERIES, UNSAID, Scene, Thing
from training.scenes.words import (
    ADJECTIVES,
    COLOUR_WORDS,
    OPENINGS,
    PLAIN_PHRASES,
    POSITION_PHRASES,
    RELATION_PHRASES,
    SCENERY_PHRASES,
    SHAPE_WORDS,
    SIZE_WORDS,
)

_COLOURED = ("coloured", "colored")

# Letters of invented words, which some captions contain to make the model robust to them.
_LETTERS = "abcdefghijklmnopqrstuvwxyz"

# Shares of captions that are empty, partial, or contain an invented word.
EMPTY_SHARE = 0.1
PARTIAL_SHARE = 0.15
STRANGER_SHARE = 0.1


@dataclass(frozen=True)
class Caption:
    """Text, and the properties of the scene that it names; None for the others."""

    text: str
    shape: str | None = None
    colour: str | None = None
    size: str | None = None
    position: str | None = None
    relation: str | None = None
    second_shape: str | None = None
    second_colour: str | None = None
    second_size: str | None = None
    background: str | None = None


def caption(scene: Scene, rng: random.Random) -> Caption:
    """Draw a caption of a scene, sometimes partial or empty."""
    if rng.random() < EMPTY_SHARE:
        return Caption("")
    says = _Choice(rng)
    first = scene.things[0]
    if len(scene.things) == 2:
        subject, said = _pair(scene, says)
    else:
        subject, said = _single(first, says)
    background = None if says.partial(0.5) else scene.background
    if background is not None:
        said["background"] = background
    text = _sentence(subject, _background_phrase(background, rng), rng)
    if rng.random() < STRANGER_SHARE:
        text = _with_stranger(text, rng)
    if rng.random() < 0.1:
        text = rng.choice((text.upper(), text.capitalize(), text.title()))
    return Caption(text, **said)


class _Choice:
    """Random choice of the parts that a caption leaves out."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self._is_partial = rng.random() < PARTIAL_SHARE

    def partial(self, share: float) -> bool:
        """Decide whether to leave a part out; never in a complete caption."""
        return self._is_partial and self.rng.random() < share


def _single(thing: Thing, says: _Choice) -> tuple[str, dict[str, str | None]]:
    said: dict[str, str | None] = {"position": "centre"}
    leaves_shape, leaves_colour = says.partial(0.3), says.partial(0.4)
    leaves_size, leaves_position = says.partial(0.4), says.partial(0.4)
    said["shape"] = None if leaves_shape else thing.shape
    said["colour"] = None if leaves_colour else thing.colour
    said["size"] = None if leaves_size else thing.size
    words = _thing_words(said["shape"], said["colour"], said["size"], says.rng)
    said["position"] = None if leaves_position else thing.position
    # Captions seldom mention the centre.
    if thing.position == "centre" and says.rng.random() < 0.75:
        return words, said
    if not leaves_position:
        words += " " + says.rng.choice(POSITION_PHRASES[thing.position])
    return words, said


def _pair(scene: Scene, says: _Choice) -> tuple[str, dict[str, str | None]]:
    first, second = scene.things
    relation = scene.relation
    assert relation is not None
    leaves_colours = says.partial(0.3)
    said: dict[str, str | None] = {
        "shape": first.shape,
        "colour": None if leaves_colours else first.colour,
        "size": first.size,
        "relation": relation,
        "second_shape": second.shape,
        "second_colour": None if leaves_colours else second.colour,
        "second_size": second.size,
    }
    subject = " ".join(
        (
            _thing_words(first.shape, said["colour"], first.size, says.rng),
            says.rng.choice(RELATION_PHRASES[relation]),
            _thing_words(second.shape, said["second_colour"], second.size, says.rng),
        )
    )
    return subject, said


def _thing_words(
    shape: str | None, colour: str | None, size: str | None, rng: random.Random
) -> str:
    size_word = rng.choice(SIZE_WORDS[size]) if size else ""
    adjective = rng.choice(ADJECTIVES) if rng.random() < 0.08 else ""
    colour_word = rng.choice(COLOUR_WORDS[colour]) if colour else ""
    shape_word = rng.choice(SHAPE_WORDS[shape]) if shape else rng.choice(("", "shape"))
    kind = rng.random()
    if colour and shape and kind < 0.05:
        words = [size_word, adjective, shape_word, "that is", colour_word]
    elif colour and shape and kind < 0.1:
        words = [size_word, adjective, shape_word, "in", colour_word]
    elif colour and kind < 0.15:
        words = [size_word, f"{colour_word}-{rng.choice(_COLOURED)}", shape_word]
    else:
        words = [size_word, adjective, colour_word, shape_word]
    phrase = " ".join(word for word in words if word)
    article = rng.random()
    if not shape_word or article < 0.15:
        return phrase
    if article < 0.2:
        return f"the {phrase}"
    if article < 0.22:
        return f"one {phrase}"
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def _background_phrase(background: str | None, rng: random.Random) -> str:
    if background is None or background in UNSAID:
        return ""
    if background in SCENERIES:
        return rng.choice(SCENERY_PHRASES[background])
    phrase = rng.choice(PLAIN_PHRASES).format(rng.choice(COLOUR_WORDS[background]))
    return phrase.replace(" a orange", " an orange")


def _sentence(subject: str, background: str, rng: random.Random) -> str:
    opening = rng.choice(OPENINGS)
    kind = rng.random()
    if background and kind < 0.12:
        parts = [f"{background},", opening, subject]
    elif background and kind < 0.3:
        parts = [opening, f"{subject},", background]
    else:
        parts = [opening, subject, background]
    text = " ".join(part for part in parts if part).strip()
    return text + rng.choice(("", "", "", "", ".", "!"))


def _with_stranger(text: str, rng: random.Random) -> str:
    stranger = "".join(rng.choices(_LETTERS, k=rng.randint(4, 9)))
    words = text.split(" ")
    words.insert(rng.randint(0, len(words)), stranger)
    return " ".join(words)
