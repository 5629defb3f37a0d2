"""Words: the names in captions for shapes, colours, sizes, places and backgrounds.

Words listed several times are chosen more often.
"""

SHAPE_WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "circle", "circle", "disc", "disk", "ball", "dot"),
    "square": ("square", "square", "square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "ring": ("ring", "ring", "ring", "hoop", "donut"),
    "cross": ("cross", "cross", "cross", "plus", "plus sign"),
    "diamond": ("diamond", "diamond", "diamond", "rhombus"),
}
COLOUR_WORDS: dict[str, tuple[str, ...]] = {
    "red": ("red", "red", "red", "red", "crimson", "scarlet"),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "turquoise": ("turquoise", "turquoise", "cyan", "teal"),
    "blue": ("blue",),
    "purple": ("purple", "purple", "purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "black": ("black",),
    "white": ("white",),
    "grey": ("grey", "gray"),
}
SIZE_WORDS: dict[str, tuple[str, ...]] = {
    "small": ("small", "small", "little", "tiny", "mini"),
    "medium": ("", "", "", "", "", "", "medium", "medium sized", "normal"),
    "large": ("large", "large", "big", "big", "huge", "giant", "enormous"),
}
SCENERY_PHRASES: dict[str, tuple[str, ...]] = {
    "night": (
        "at night",
        "at night",
        "in the night",
        "under the stars",
        "in the night sky",
        "at midnight",
        "under a night sky",
    ),
    "grass": (
        "on grass",
        "on the grass",
        "on green grass",
        "in a meadow",
        "on a lawn",
        "in the grass",
        "in a green field",
    ),
    "sunset": (
        "at sunset",
        "at sunset",
        "at dusk",
        "in the sunset",
        "in front of a sunset",
        "in the evening",
    ),
    "snow": ("in the snow", "in snow", "on snow", "on the snow", "in winter", "in a snowy field"),
    "desert": (
        "in the desert",
        "in a desert",
        "on sand",
        "on the sand",
        "in the dunes",
        "in the sand",
    ),
    "sea": (
        "under water",
        "underwater",
        "in the sea",
        "under the sea",
        "in the ocean",
        "in water",
        "in the water",
    ),
}
POSITION_PHRASES: dict[str, tuple[str, ...]] = {
    "centre": ("in the centre", "in the center", "in the middle", "at the centre", "at the center"),
    "top": ("at the top", "at the top", "near the top", "at the top centre", "at the upper edge"),
    "bottom": ("at the bottom", "at the bottom", "near the bottom", "at the lower edge"),
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
} | {
    f"{vertical} {side}": (
        f"at the {vertical} {side}",
        f"at the {vertical} {side}",
        f"in the {vertical} {side} corner",
        f"in the {vertical} {side}",
        f"{vertical} {side}",
        f"in the {other} {side}",
        f"in the {other} {side} corner",
    )
    for vertical, other in (("top", "upper"), ("bottom", "lower"))
    for side in ("left", "right")
}
RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "above": ("above", "above", "over", "on top of"),
    "below": ("below", "below", "under", "beneath", "underneath"),
    "left": ("to the left of", "left of", "and", "and", "next to", "beside", "with"),
    "right": ("to the right of", "right of"),
}
PLAIN_PHRASES = (
    "on a {} background",
    "on a {} background",
    "on {}",
    "against a {} background",
    "with a {} background",
    "{} background",
    "in front of a {} background",
    "in front of a {} wall",
    "on a plain {} background",
    "on a {} backdrop",
    "with {} behind it",
    "on a {} canvas",
    "over {}",
    "against {}",
)
OPENINGS = (
    *("",) * 12,
    "a photo of",
    "a picture of",
    "an image of",
    "a drawing of",
    "draw",
    "paint",
    "show me",
    "make",
    "there is",
    "an illustration of",
    "i want",
    "please draw",
)
ADJECTIVES = ("bright", "nice", "vivid", "plain", "simple", "beautiful", "coloured", "cute")


def vocabulary() -> list[str]:
    """Return all words of captions, sorted."""
    tables = (SHAPE_WORDS, COLOUR_WORDS, SIZE_WORDS, SCENERY_PHRASES, POSITION_PHRASES)
    phrases = [phrase for table in tables for group in table.values() for phrase in group]
    phrases += [phrase for group in RELATION_PHRASES.values() for phrase in group]
    phrases += [phrase.format("") for phrase in PLAIN_PHRASES]
    phrases += [
        *OPENINGS,
        *ADJECTIVES,
        "a an the that is in colour color coloured colored one two shape shapes",
    ]
    return sorted({word for phrase in phrases for word in phrase.split()})
