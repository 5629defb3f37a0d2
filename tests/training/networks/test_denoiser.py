"""Denoiser: timesteps and weights of its training, and checkpoints."""

from pathlib import Path

import torch

from training.networks.denoiser import (
    LATE_SHARE,
    LATE_TIMESTEP,
    Training,
    build_denoiser,
    draw_timesteps,
    weigh,
)
from training.networks.text_encoder import build_text_encoder
from training.networks.tokenizer import build_tokenizer
from training.scenes.scene import Scene, place


def test_timesteps_reach_over_the_whole_range_and_few_are_late() -> None:
    timesteps = draw_timesteps(1000, 1000)
    assert timesteps.min() < 10
    assert timesteps.max() > 990
    assert (timesteps < LATE_TIMESTEP).float().mean().isclose(torch.tensor(LATE_SHARE), atol=0.01)


def test_only_latents_at_things_weigh_more() -> None:
    thing = place("star", "red", "small", "top left", 128, 96)
    weights = weigh([Scene((thing,), None, "blue", 128, 96, 0)])
    assert weights.shape == (1, 1, 12, 16)
    assert weights[0, 0, 3, 4] > 5
    assert weights[0, 0, :, 8:].eq(1).all()


def test_a_checkpoint_brings_back_weights_average_and_step(tmp_path: Path) -> None:
    def start() -> Training:
        return Training(build_text_encoder(build_tokenizer()), build_denoiser())

    run, again = start(), start()
    run.step, run.spent_s = 7, 12.5
    run.save(tmp_path / "run.pt")
    again.load(tmp_path / "run.pt")
    assert (again.step, again.spent_s) == (7, 12.5)
    for name, weight in run.average.state_dict().items():
        assert torch.equal(weight, again.average.state_dict()[name])
