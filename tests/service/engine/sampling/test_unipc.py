"""UniPC's updates, compared with those of diffusers in all configurations."""

import itertools
from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from safelight_service.engine.sampling.unipc import UniPcUpdates

FINALS: list[dict[str, Any]] = [
    {"lower_order_final": True},
    {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
]
CONFIGS: list[dict[str, Any]] = [
    {"solver_order": order, "solver_type": kind, "predict_x0": predict_x0, **final}
    for order, kind, predict_x0, final in itertools.product(
        (1, 2, 3, 4), ("bh1", "bh2"), (True, False), FINALS
    )
]
LEVELS: list[dict[str, Any]] = [
    {"prediction_type": "epsilon"},
    {"prediction_type": "v_prediction", "use_karras_sigmas": True},
    {"prediction_type": "sample", "disable_corrector": [0, 2]},
    {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
]


def make_steps(scheduler: Any, dtype: torch.dtype) -> list[torch.Tensor]:
    scheduler.set_timesteps(7)
    sample = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    samples = []
    for timestep in scheduler.timesteps:
        (sample,) = scheduler.step(sample.sin(), timestep, sample, return_dict=False)
        samples.append(sample)
    return samples


@pytest.mark.parametrize("levels", LEVELS, ids=lambda levels: levels["prediction_type"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_updates_are_to_the_last_bit_those_of_diffusers(
    levels: dict[str, Any], dtype: torch.dtype
) -> None:
    updates = UniPcUpdates()
    for config in CONFIGS:
        if levels["prediction_type"] == "flow_prediction" and not config["predict_x0"]:
            continue  # diffusers does not support it
        scheduler = UniPCMultistepScheduler(**config, **levels)
        expected = make_steps(scheduler, dtype)
        updates.attach(scheduler)
        for _ in range(2):  # the second time from cached values
            for latents, others in zip(make_steps(scheduler, dtype), expected, strict=True):
                assert latents.dtype == dtype
                torch.testing.assert_close(latents, others, rtol=0, atol=0, equal_nan=True)


def test_a_schedule_is_solved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    updates = UniPcUpdates()
    solve: Any = torch.linalg.solve
    solved = 0

    def count(*system: Any) -> Any:
        nonlocal solved
        solved += 1
        return solve(*system)

    monkeypatch.setattr(torch.linalg, "solve", count)
    for _ in range(3):
        scheduler = UniPCMultistepScheduler()
        updates.attach(scheduler)
        make_steps(scheduler, torch.float32)
        assert solved == 5


def test_another_scheduler_may_still_predict() -> None:
    def make() -> UniPCMultistepScheduler:
        return UniPCMultistepScheduler(solver_p=UniPCMultistepScheduler(solver_order=1))

    scheduler = make()
    UniPcUpdates().attach(scheduler)
    for latents, others in zip(
        make_steps(scheduler, torch.float32), make_steps(make(), torch.float32), strict=True
    ):
        assert latents.equal(others)
