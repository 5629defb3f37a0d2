"""Rasteriser: the right colour in the right place."""

import pytest
import torch

from training.scenes.render import mask, render, rgb
from training.scenes.scene import COLOURS, RADII, SCENERIES, SHAPES, Scene, place, place_pair


@pytest.mark.parametrize("shape", SHAPES)
def test_a_thing_has_its_colour_inside_and_the_background_outside(shape: str) -> None:
    thing = place(shape, "red", "medium", "top left", 128, 128)
    scene = Scene((thing,), None, "blue", 128, 128, 0)
    picture = (render([scene])[0] + 1) / 2
    inside = mask(shape, thing.centre_x, thing.centre_y, thing.radius, 128, 128)
    assert torch.allclose(picture[:, inside == 1].mean(1), rgb(COLOURS["red"]), atol=1e-5)
    assert torch.allclose(picture[:, inside == 0].mean(1), rgb(COLOURS["blue"]), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_mask_fills_its_radius_and_no_more(shape: str) -> None:
    inside = mask(shape, 64, 64, 40, 128, 128)
    rows, columns = inside.any(1).nonzero(), inside.any(0).nonzero()
    assert rows.min() >= 23
    assert rows.max() <= 104
    assert columns.min() >= 23
    assert columns.max() <= 104
    assert 0.15 < inside.sum() / 80**2 < 0.75


def test_masks_are_symmetric_from_left_to_right() -> None:
    for shape in SHAPES:
        inside = mask(shape, 64, 64, 40, 128, 128)
        assert torch.allclose(inside, inside.flip(1), atol=1e-3), shape


def test_things_scale_with_the_shorter_side() -> None:
    assert place("ring", "red", "large", "centre", 256, 96).radius == RADII["large"] * 96


def test_a_pair_shows_both_colours() -> None:
    things = place_pair(
        (("circle", "red", "large"), ("square", "green", "large")), "left", 128, 128
    )
    picture = (render([Scene(things, "left", "white", 128, 128, 0)])[0] + 1) / 2
    assert torch.allclose(picture[:, 64, 34], rgb(COLOURS["red"]), atol=0.01)
    assert torch.allclose(picture[:, 64, 93], rgb(COLOURS["green"]), atol=0.01)


@pytest.mark.parametrize("scenery", SCENERIES)
def test_scenery_is_the_same_for_the_same_seed_and_in_range(scenery: str) -> None:
    scenes = [Scene((), None, scenery, 136, 104, seed) for seed in (1, 1, 2)]
    first, again, other = render(scenes)
    assert torch.equal(first, again)
    assert first.shape == (3, 104, 136)
    assert first.min() >= -1
    assert first.max() <= 1
    if scenery in ("night", "snow", "desert", "sea"):
        assert not torch.equal(first, other)
