"""Denoising: the service's additions to a scheduler's steps, on an asynchronous device."""

from typing import Any, Self

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch.utils._pytree import tree_map

from safelight_service.engine.sampling.denoising import Step, observe_steps
from safelight_service.engine.sampling.schedulers import SchedulerChoice

STEPS = 6
MODELS = {"noise": DDIMScheduler(), "flow": FlowMatchEulerDiscreteScheduler()}
SCHEDULERS = [
    pytest.param(kind, info.name, id=f"{kind}-{info.name}")
    for kind, own in MODELS.items()
    for info in SchedulerChoice(own).list()
]
WAITS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
)
"""Operations for which the host must wait until the device has finished all earlier work."""


class FarTensor(torch.Tensor):
    """Tensor as on a GPU: reading its values makes the host wait."""

    waits: list[Any]
    near: torch.Tensor

    def __new__(cls, near: torch.Tensor, waits: list[Any]) -> Self:
        far: Self = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), dtype=near.dtype, strides=near.stride()
        )
        far.near, far.waits = near, waits
        return far

    def cpu(self, *_: Any, **__: Any) -> torch.Tensor:
        self.waits.append("cpu")
        return self.near

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        waits: list[Any] = []

        def bring_near(value: Any) -> Any:
            if not isinstance(value, FarTensor):
                return value
            nonlocal waits
            waits = value.waits
            return value.near

        result = operator(*tree_map(bring_near, args), **tree_map(bring_near, kwargs or {}))
        if operator in WAITS:
            waits.append(operator)
        return tree_map(
            lambda value: cls(value, waits) if isinstance(value, torch.Tensor) else value, result
        )


@pytest.mark.parametrize(("kind", "name"), SCHEDULERS)
def test_no_step_but_the_first_waits_for_the_device(kind: str, name: str) -> None:
    """Previews do not wait, either. The device stays busy only if the host is ahead of it."""
    waits: list[Any] = []
    random = torch.Generator().manual_seed(0)

    def draw() -> torch.Tensor:
        return FarTensor(torch.randn(1, 4, 8, 8, generator=random), waits)

    scheduler: Any = SchedulerChoice(MODELS[kind]).make(name)
    scheduler.set_timesteps(STEPS)
    timesteps = scheduler.timesteps = FarTensor(scheduler.timesteps, waits)
    seen: list[int] = []

    def look(step: Step) -> None:
        step.predict_clean()
        seen.append(step.number)

    observe_steps(scheduler, STEPS, torch.Generator().manual_seed(0), look, lambda _: None)
    latents = draw()
    for number in range(len(timesteps)):
        timestep = timesteps[number]
        if hasattr(scheduler, "scale_model_input"):
            scheduler.scale_model_input(latents, timestep)
        (latents, *_) = scheduler.step(draw(), timestep, latents, return_dict=False)
        if number == 0:
            assert waits
            waits.clear()
    assert seen == list(range(1, STEPS + 1))
    assert waits == []


def test_timesteps_that_are_not_the_schedulers_are_left_as_they_are() -> None:
    passed: list[float] = []

    class Scheduler:
        timesteps = torch.tensor([9.0, 5.0, 1.0])

        def step(self, model_output: Any, timestep: Any, sample: Any) -> tuple[Any]:
            passed.append(float(timestep))
            return (sample,)

    scheduler = Scheduler()
    observe_steps(scheduler, 3, torch.Generator(), lambda step: None, lambda _: None)
    for timestep in (0.9, 0.5, 0.1):
        scheduler.step(None, torch.tensor(timestep), None)
    assert passed == pytest.approx([0.9, 0.5, 0.1])
