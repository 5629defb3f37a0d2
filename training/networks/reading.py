"""Reading: a loss that trains the text encoder to keep the content of captions."""

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.scenes.captions import Caption
from training.scenes.scene import COLOURS, POSITIONS, RADII, SCENERIES, SHAPES, UNSAID

# Classes by field of Caption; each field has one more class for "not mentioned". The first of a
# pair is the upper or the left one, in any order of the caption.
CLASSES: dict[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(RADII),
    "position": tuple(POSITIONS),
    "relation": ("above", "left"),
    "second_shape": SHAPES,
    "second_colour": tuple(COLOURS),
    "second_size": tuple(RADII),
    "background": (*COLOURS, *SCENERIES, *UNSAID),
}

_INVERSE = {"below": "above", "right": "left"}


class Reader(nn.Module):
    """Linear layer for each of CLASSES, over pooled captions of (batch, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {field: nn.Linear(width, len(names) + 1) for field, names in CLASSES.items()}
        )

    def forward(self, pooled: Tensor, captions: list[Caption]) -> tuple[Tensor, dict[str, float]]:
        """Return the summed cross entropy, and the share of captions read right by field."""
        placed = [in_place(said) for said in captions]
        loss = torch.zeros((), device=pooled.device)
        right = {}
        for field, names in CLASSES.items():
            said = [getattr(item, field) for item in placed]
            numbers = [len(names) if name is None else names.index(name) for name in said]
            target = torch.tensor(numbers, device=pooled.device)
            scores = self.layers[field](pooled)
            loss = loss + functional.cross_entropy(scores, target)
            right[field] = (scores.argmax(1) == target).float().mean().item()
        return loss, right


def in_place(said: Caption) -> Caption:
    """Return the caption with the upper or left one of a pair first."""
    if said.relation not in _INVERSE:
        return said
    return dataclasses.replace(
        said,
        relation=_INVERSE[said.relation],
        shape=said.second_shape,
        colour=said.second_colour,
        size=said.second_size,
        second_shape=said.shape,
        second_colour=said.colour,
        second_size=said.size,
    )
