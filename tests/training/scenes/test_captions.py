"""Captions: they mention properties of their scene, and nothing else."""

import random

import pytest

from training.networks.tokenizer import build_tokenizer
from training.scenes.captions import Caption, caption
from training.scenes.scene import Scene, draw_scene
from training.scenes.words import COLOUR_WORDS, SHAPE_WORDS, vocabulary

Captioned = list[tuple[Scene, Caption]]


@pytest.fixture(scope="module")
def captions() -> Captioned:
    rng = random.Random(0)
    scenes = [draw_scene(rng, 128, 128) for _ in range(2000)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def test_a_caption_names_what_it_says_it_names(
    captions: Captioned,
) -> None:
    for _, item in captions:
        text = item.text.lower()
        if item.colour is not None:
            assert any(word in text for word in COLOUR_WORDS[item.colour]), text
        if item.shape is not None:
            assert any(word in text for word in SHAPE_WORDS[item.shape]), text


def test_a_caption_says_nothing_that_is_not_in_its_scene(captions: Captioned) -> None:
    for scene, item in captions:
        first = scene.things[0]
        assert item.colour in (None, first.colour)
        assert item.shape in (None, first.shape)
        assert item.size in (None, first.size)
        assert item.background in (None, scene.background)


def test_about_one_caption_in_ten_is_empty_and_says_nothing(captions: Captioned) -> None:
    empty = [item for _, item in captions if item.text == ""]
    assert 0.07 < len(empty) / len(captions) < 0.13
    assert set(empty) == {Caption("")}


def test_captions_are_varied(captions: Captioned) -> None:
    assert len({item.text for _, item in captions}) > 1500


def test_almost_every_word_of_a_caption_is_in_the_vocabulary(captions: Captioned) -> None:
    tokenizer = build_tokenizer()
    numbers = tokenizer([item.text for _, item in captions]).input_ids
    unknown = sum(row.count(tokenizer.unk_token_id) for row in numbers)
    # The invented words, at most one in a caption.
    assert 0.05 < unknown / len(captions) < 0.15
    assert len(vocabulary()) == len(set(vocabulary()))
