"""Judge: it recognises scenes of the rasteriser, and nothing else."""

import pytest
import torch

from training.scenes.judge import fit_shape, judge, judge_pair, largest_component
from training.scenes.render import render
from training.scenes.scene import COLOURS, RELATIONS, SCENERIES, SHAPES, Scene, place, place_pair


def _picture(shape: str, colour: str, size: str, position: str, background: str) -> torch.Tensor:
    thing = place(shape, colour, size, position, 128, 128)
    return (render([Scene((thing,), None, background, 128, 128, 7)])[0] + 1) / 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", ["small", "large"])
def test_all_shapes_are_recognised_at_all_sizes(shape: str, size: str) -> None:
    seen = judge(_picture(shape, "green", size, "bottom right", "paper"))
    assert (seen.shape, seen.colour, seen.background) == (shape, "green", "paper")
    assert seen.overlap > 0.85


@pytest.mark.parametrize("colour", COLOURS)
def test_all_colours_are_recognised_before_and_behind(colour: str) -> None:
    other = "white" if colour == "black" else "black"
    before = judge(_picture("heart", colour, "medium", "centre", other))
    assert (before.colour, before.background) == (colour, other)
    behind = judge(_picture("heart", other, "medium", "centre", colour))
    assert (behind.colour, behind.background) == (other, colour)


@pytest.mark.parametrize("scenery", SCENERIES)
def test_all_sceneries_are_recognised(scenery: str) -> None:
    seen = judge(_picture("star", "red", "medium", "left", scenery))
    assert (seen.shape, seen.colour, seen.background) == ("star", "red", scenery)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_both_things_of_a_pair_are_recognised_where_they_lie(relation: str, size: str) -> None:
    kinds = ("ring", "red", size), ("star", "blue", size)
    things = place_pair(kinds, relation, 128, 128)
    picture = (render([Scene(things, relation, "paper", 128, 128, 0)])[0] + 1) / 2
    seen = judge_pair(picture, is_upright=relation in ("above", "below"))
    expected = [("ring", "red"), ("star", "blue")]
    if relation in ("below", "right"):
        expected.reverse()
    assert [(verdict.shape, verdict.colour) for verdict in seen] == expected


def test_an_empty_picture_shows_no_shape() -> None:
    seen = judge((render([Scene((), None, "blue", 128, 128, 0)])[0] + 1) / 2)
    assert (seen.shape, seen.colour, seen.background) == (None, None, "blue")


def test_scattered_noise_shows_no_shape() -> None:
    noise = torch.rand(3, 128, 128, generator=torch.Generator().manual_seed(0))
    assert judge(noise).shape is None


def test_a_bar_is_none_of_the_shapes() -> None:
    picture = torch.zeros(3, 128, 128)
    picture[0, 60:66, 20:108] = 0.9
    assert judge(picture).shape is None


def test_only_the_largest_part_of_a_mask_counts() -> None:
    mask = torch.zeros(32, 32, dtype=torch.bool)
    mask[2:5, 2:5] = True
    mask[10:20, 10:20] = True
    assert largest_component(mask).sum() == 100
    assert fit_shape(largest_component(mask))[0] == "square"
