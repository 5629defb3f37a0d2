"""Generations that continue on another engine from the log of the one that was killed."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from safelight_service.core.events import Completed
from safelight_service.core.request import Parameters
from safelight_service.settings import RecoverySettings, Settings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.kills import Outcome, open_killing
from tests.service.fleet.backends import REQUEST, generate, open_fleet, settings_of
from tests.service.fleet.test_remote_backend import at_step, digests

STEPS = 60
LONG = replace(
    REQUEST,
    parameters=Parameters(**{**SMALL, "num_inference_steps": STEPS, "scheduler": "euler"}),
)
MOST_REPEATED = 2
"""Forwards that an engine may have run and not logged when it is killed."""


def settings_with(tiny_models: TinyModels, folder: Path) -> Settings:
    recovery = RecoverySettings(folder=folder)
    return settings_of(tiny_models).model_copy(update={"recovery": recovery})


@pytest.mark.parametrize(
    "kills", [(21,), pytest.param((5, 17, 30, 44, 58), marks=pytest.mark.slow)]
)
def test_a_generation_survives_its_engines_without_repeating_its_steps(
    tiny_models: TinyModels, tmp_path: Path, kills: tuple[int, ...]
) -> None:
    async def main() -> tuple[Outcome, Outcome]:
        settings = settings_with(tiny_models, tmp_path)
        async with asyncio.timeout(100), open_killing(settings, "sd15") as killing:
            return await killing.generate(LONG), await killing.generate(LONG, *kills)

    undisturbed, again = asyncio.run(main())
    assert again.digests == undisturbed.digests
    assert undisturbed.forward_count == STEPS
    assert again.forward_count <= STEPS + MOST_REPEATED * len(kills)
    assert [event.restart_count for event in again.restarts] == [*range(1, len(kills) + 1)]
    for restart, step in zip(again.restarts, kills, strict=True):
        assert restart.recovered_step_count >= step - MOST_REPEATED
    completed = again.events[-1]
    assert isinstance(completed, Completed)
    assert (completed.restart_count, completed.step_count) == (len(kills), STEPS)


def test_a_host_that_goes_on_unseen_spoils_nothing(tiny_models: TinyModels, tmp_path: Path) -> None:
    """Its front hears nothing more of it, and another host continues with its log meanwhile."""

    async def main() -> None:
        fleet = open_fleet(settings_with(tiny_models, tmp_path), 2)
        async with asyncio.timeout(60), fleet as (front, pool):
            undisturbed = await generate(front, LONG)
            again = await generate(front, LONG, at_step(10, pool.wires[0].cut))
        assert digests(again) == digests(undisturbed)

    asyncio.run(main())
