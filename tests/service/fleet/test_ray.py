"""A Ray cluster whose engines are killed."""

import asyncio
from dataclasses import replace

import pytest

from safelight_service.core.events import Accepted, Event, Image, Progress
from safelight_service.core.request import Parameters
from support.engine.job_runs import SMALL
from support.engine.tiny_models import TinyModels
from support.fleet.ray_cluster import open_ray_cluster
from tests.service.fleet.backends import REQUEST, begin, generate, settings_of

pytestmark = pytest.mark.ray

LONG = replace(REQUEST, parameters=Parameters(**{**SMALL, "num_inference_steps": 300}))


def images_of(events: list[Event]) -> list[str]:
    return [event.sha256 for event in events if isinstance(event, Image)]


def test_generations_survive_the_death_of_their_engine(tiny_models: TinyModels) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: scripts/install-ray installs it")
    with open_ray_cluster(settings_of(tiny_models), 2) as cluster:

        async def main() -> None:
            async with asyncio.timeout(100), cluster.open() as backend:
                undisturbed = images_of(await generate(backend, LONG))
                running = await begin(backend, LONG, Progress)
                await asyncio.to_thread(cluster.kill_busy)
                events = await running
                assert images_of(events) == undisturbed
                assert sum(isinstance(event, Accepted) for event in events) == 1

        asyncio.run(main())
