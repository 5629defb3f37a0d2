"""A Ray cluster whose engines are killed."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from safelight_service.core.events import Accepted, Event, Image, Progress, Restarted
from safelight_service.core.request import Parameters
from safelight_service.settings import RecoverySettings
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.ray_cluster import open_ray_cluster
from tests.service.fleet.backends import REQUEST, begin, generate, settings_of

pytestmark = pytest.mark.ray

LONG = replace(REQUEST, parameters=Parameters(**{**SMALL, "num_inference_steps": 300}))


def images_of(events: list[Event]) -> list[str]:
    return [event.sha256 for event in events if isinstance(event, Image)]


def test_generations_survive_the_death_of_their_engine(
    tiny_models: TinyModels, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: scripts/install-ray installs it")
    recovery = RecoverySettings(folder=tmp_path)
    settings = settings_of(tiny_models).model_copy(update={"recovery": recovery})
    with open_ray_cluster(settings, 2) as cluster:

        async def main() -> None:
            async with asyncio.timeout(100), cluster.open() as backend:
                undisturbed = images_of(await generate(backend, LONG))
                running = await begin(backend, LONG, Progress)
                await asyncio.to_thread(cluster.kill_busy)
                events = await running
                assert images_of(events) == undisturbed
                assert sum(isinstance(event, Accepted) for event in events) == 1
                [restarted] = [event for event in events if isinstance(event, Restarted)]
                before = events[: events.index(restarted)]
                reached = max(event.step for event in before if isinstance(event, Progress))
                assert restarted.recovered_step_count >= reached - 2

        asyncio.run(main())
