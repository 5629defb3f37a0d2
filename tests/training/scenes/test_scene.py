"""Scenes: no held-out combination, and no thing beyond the border."""

import random

import pytest

from training.scenes.prompts import COUNT, PAIR_COUNT, evaluation_pairs, evaluation_prompts
from training.scenes.scene import COLOURS, SHAPES, Scene, draw_scene, is_held_out


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = random.Random(1)
    return [
        draw_scene(rng, *size) for size in ((128, 128), (256, 96), (96, 160)) for _ in range(1000)
    ]


def test_no_training_scene_is_held_out(scenes: list[Scene]) -> None:
    held_out = {(prompt.colour, prompt.shape, prompt.background) for prompt in evaluation_prompts()}
    drawn = {(t.colour, t.shape, scene.background) for scene in scenes for t in scene.things}
    assert not held_out & drawn


def test_every_evaluation_prompt_is_of_a_held_out_combination() -> None:
    prompts = evaluation_prompts()
    assert len(prompts) == COUNT >= 200
    assert all(is_held_out(prompt.colour, prompt.shape, prompt.background) for prompt in prompts)


def test_evaluation_prompts_are_always_the_same_and_hold_every_colour_and_shape() -> None:
    prompts = evaluation_prompts()
    assert prompts == evaluation_prompts()
    assert {prompt.colour for prompt in prompts} == set(COLOURS)
    assert {prompt.shape for prompt in prompts} == set(SHAPES)


def test_every_pair_of_the_evaluation_is_fixed_and_has_a_thing_that_is_held_out() -> None:
    prompts = evaluation_pairs()
    assert prompts == evaluation_pairs()
    assert len(prompts) == PAIR_COUNT
    for prompt in prompts:
        things = zip(prompt.colours, prompt.shapes, strict=True)
        assert any(is_held_out(colour, shape, prompt.background) for colour, shape in things)


def test_things_lie_inside_the_picture(scenes: list[Scene]) -> None:
    for scene in scenes:
        for thing in scene.things:
            assert thing.radius <= thing.centre_x <= scene.width - thing.radius
            assert thing.radius <= thing.centre_y <= scene.height - thing.radius


def test_a_thing_never_has_the_colour_of_a_plain_background(scenes: list[Scene]) -> None:
    assert all(t.colour != scene.background for scene in scenes for t in scene.things)


def test_the_first_of_a_pair_lies_where_the_relation_says(scenes: list[Scene]) -> None:
    for scene in scenes:
        if scene.relation is None:
            continue
        first, second = scene.things
        assert {
            "above": first.centre_y < second.centre_y,
            "below": first.centre_y > second.centre_y,
            "left": first.centre_x < second.centre_x,
            "right": first.centre_x > second.centre_x,
        }[scene.relation]
