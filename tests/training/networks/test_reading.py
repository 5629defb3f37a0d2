"""Reading: properties by place, in any order of words."""

import random

import torch

from training.networks.reading import CLASSES, Reader, in_place
from training.scenes.captions import Caption, caption
from training.scenes.scene import draw_scene

STAR_BELOW_HEART = Caption(
    "a red star below a blue heart",
    shape="star",
    colour="red",
    size="medium",
    relation="below",
    second_shape="heart",
    second_colour="blue",
    second_size="large",
)


def test_the_upper_one_of_a_pair_comes_first() -> None:
    placed = in_place(STAR_BELOW_HEART)
    assert (placed.relation, placed.shape, placed.colour, placed.size) == (
        "above",
        "heart",
        "blue",
        "large",
    )
    assert (placed.second_shape, placed.second_colour, placed.second_size) == (
        "star",
        "red",
        "medium",
    )
    assert in_place(placed) == placed


def test_everything_that_captions_say_has_a_class() -> None:
    rng = random.Random(0)
    for _ in range(500):
        placed = in_place(caption(draw_scene(rng, 128, 128, 0.5), rng))
        for field, names in CLASSES.items():
            assert getattr(placed, field) in (*names, None)


def test_a_reader_learns_what_is_in_the_embedding() -> None:
    torch.manual_seed(0)
    captions = [STAR_BELOW_HEART, Caption("")] * 8
    pooled = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(8, 1)
    reader = Reader(2)
    optimizer = torch.optim.Adam(reader.parameters(), 0.1)
    for _ in range(100):
        loss, right = reader(pooled, captions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert set(right.values()) == {1.0}
