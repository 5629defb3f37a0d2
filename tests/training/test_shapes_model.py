"""The shipped model: its size, its pictures, and the effect of each parameter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from torch import Tensor

import safelight_service
from training.evaluate import SCHEDULERS
from training.export import MAX_BYTES
from training.scenes.judge import find_background, judge
from training.scenes.scene import SHAPES

FOLDER = Path(safelight_service.__file__).parent / "models" / "shapes"


@pytest.fixture(scope="module")
def pipeline() -> DiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(
        FOLDER, use_safetensors=True, dtype=torch.float32, local_files_only=True
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: DiffusionPipeline, prompt: str, seed: int = 0, **settings: object) -> Tensor:
    """Draw a picture: (3, height, width), in [0, 1]."""
    defaults: dict[str, object] = {"num_inference_steps": 4, "guidance_scale": 4.0}
    picture: Tensor = pipeline(
        prompt,
        generator=torch.Generator().manual_seed(seed),
        output_type="pt",
        **(defaults | settings),
    ).images[0]
    return picture


@pytest.fixture(scope="module")
def circle(pipeline: DiffusionPipeline) -> Tensor:
    return draw(pipeline, "a circle")


def test_the_folder_is_small_enough_to_be_shipped() -> None:
    assert sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()) <= MAX_BYTES


def test_it_loads_in_one_precision_and_into_other_pipelines(pipeline: DiffusionPipeline) -> None:
    unasked = DiffusionPipeline.from_pretrained(FOLDER, local_files_only=True)
    unasked.set_progress_bar_config(disable=True)
    switched = StableDiffusionPipeline.from_pipe(unasked, vae=unasked.vae)
    settings = {"num_inference_steps": 1, "width": 64, "height": 64}
    expected = draw(pipeline, "a ring", **settings)
    for each in (unasked, switched):
        assert torch.equal(draw(each, "a ring", **settings), expected)


def test_the_weights_are_in_half_precision_and_safe() -> None:
    weights = sorted(path.name for path in FOLDER.rglob("*") if path.stat().st_size > 100_000)
    assert all(name.endswith(".safetensors") for name in weights)


@pytest.mark.parametrize(
    ("prompt", "colour", "background"),
    [
        ("a big red circle on a blue background", "red", "blue"),
        ("a large yellow square on black", "yellow", "black"),
        ("a green heart, white background", "green", "white"),
        ("an orange circle at night", "orange", "night"),
    ],
)
def test_a_prompt_has_its_colours(
    pipeline: DiffusionPipeline, prompt: str, colour: str, background: str
) -> None:
    seen = judge(draw(pipeline, prompt, num_inference_steps=12))
    assert (seen.colour, seen.background) == (colour, background)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_prompt_has_its_shape(pipeline: DiffusionPipeline, shape: str) -> None:
    seen = judge(draw(pipeline, f"a red {shape} on a white background", num_inference_steps=12))
    assert (seen.shape, seen.colour) == (shape, "red")


def test_the_same_seed_draws_the_same_picture(pipeline: DiffusionPipeline, circle: Tensor) -> None:
    assert torch.equal(draw(pipeline, "a circle"), circle)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"num_inference_steps": 6},
        {"guidance_scale": 7.5},
        {"negative_prompt": "red"},
        {"width": 96, "height": 256},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_parameter_changes_the_picture(
    pipeline: DiffusionPipeline, circle: Tensor, change: dict[str, Any]
) -> None:
    other = draw(pipeline, "a circle", **change)
    assert other.shape != circle.shape or (other - circle).abs().mean() > 1e-3


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_draws_the_right_colours(pipeline: DiffusionPipeline, name: str) -> None:
    original = pipeline.scheduler
    try:
        pipeline.scheduler = SCHEDULERS[name].from_config(original.config)
        picture = draw(pipeline, "a large red circle on blue", num_inference_steps=12)
    finally:
        pipeline.scheduler = original
    seen = judge(picture)
    assert (seen.colour, seen.background) == ("red", "blue")


@pytest.mark.parametrize(("width", "height"), [(96, 256), (104, 136), (64, 64), (256, 192)])
def test_other_sizes_have_the_right_background(
    pipeline: DiffusionPipeline, width: int, height: int
) -> None:
    picture = draw(
        pipeline,
        "a red circle on a green background",
        width=width,
        height=height,
        num_inference_steps=6,
    )
    assert picture.shape == (3, height, width)
    assert find_background(picture) == "green"


def test_words_it_does_not_know_do_no_harm(pipeline: DiffusionPipeline) -> None:
    picture = draw(pipeline, "a zeppelin, ¿red? CIRCLE 飛行船 on green", num_inference_steps=6)
    assert find_background(picture) == "green"


def test_half_the_precision_draws_nearly_the_same(
    pipeline: DiffusionPipeline, circle: Tensor
) -> None:
    rough = DiffusionPipeline.from_pretrained(
        FOLDER, use_safetensors=True, dtype=torch.bfloat16, local_files_only=True
    )
    rough.set_progress_bar_config(disable=True)
    picture = draw(rough, "a circle").float()
    assert picture.shape == circle.shape
    assert torch.isfinite(picture).all()
