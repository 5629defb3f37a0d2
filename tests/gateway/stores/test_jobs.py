"""Jobs, within bounds of number and time."""

from dataclasses import replace

import pytest

from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import ImageRequest
from safelight_gateway.settings import JobSettings, Settings
from safelight_gateway.state import AppState
from tests.gateway.failing_service import ENDLESS, READY, FailingService
from tests.gateway.stores.images import image


@pytest.mark.anyio
async def test_jobs_beyond_the_bound_are_refused_and_ended_ones_make_room(
    failing_service: FailingService,
) -> None:
    settings = Settings(target=failing_service.target, jobs=JobSettings(max_count=2))
    async with AppState(settings) as state:
        first = state.jobs.start(ImageRequest(prompt="x", model=(READY,)), "a")
        assert await first.wait_until_ended()
        endless = [
            state.jobs.start(ImageRequest(prompt="x", model=(ENDLESS,)), "a") for _ in range(2)
        ]
        with pytest.raises(GatewayError) as raised:
            state.jobs.find(first.id, None)
        assert raised.value.status == 404
        with pytest.raises(GatewayError) as raised:
            state.jobs.start(ImageRequest(prompt="x"), "a")
        assert raised.value.status == 429
    assert all(job.has_ended for job in endless)


@pytest.mark.anyio
async def test_results_beyond_the_memory_are_forgotten_the_oldest_first(
    failing_service: FailingService,
) -> None:
    async with AppState(Settings(target=failing_service.target)) as state:
        jobs = []
        for _ in range(3):
            jobs.append(state.jobs.start(ImageRequest(prompt="x", model=(READY,)), "a"))
            assert await jobs[-1].wait_until_ended()
            result = jobs[-1].result
            assert result is not None
            jobs[-1].result = replace(result, images=(image(bytes(100 * 2**20)),))
        with pytest.raises(GatewayError):
            state.jobs.find(jobs[0].id, None)
        assert state.jobs.find(jobs[1].id, None) is jobs[1]


@pytest.mark.anyio
async def test_jobs_age_by_the_monotonic_clock(failing_service: FailingService) -> None:
    async with AppState(Settings(target=failing_service.target)) as state:
        job = state.jobs.start(ImageRequest(prompt="x", model=(READY,)), "a")
        assert await job.wait_until_ended()
        assert job.ended_at is not None
        assert job.ended_s is not None
        job.ended_at -= 86_400.0  # the wall clock was set forward a day
        assert state.jobs.find(job.id, None) is job
        job.ended_s -= 86_400.0
        with pytest.raises(GatewayError):
            state.jobs.find(job.id, None)


@pytest.mark.anyio
async def test_a_holder_with_more_jobs_pushes_out_only_its_own(
    failing_service: FailingService,
) -> None:
    settings = Settings(target=failing_service.target, jobs=JobSettings(max_count=4))
    async with AppState(settings) as state:
        kept = state.jobs.start(ImageRequest(prompt="x", model=(READY,)), "a")
        await kept.wait_until_ended()
        for _ in range(6):
            job = state.jobs.start(ImageRequest(prompt="x", model=(READY,)), "b")
            await job.wait_until_ended()
        assert state.jobs.find(kept.id, None) is kept
        for _ in range(3):
            state.jobs.start(ImageRequest(prompt="x", model=(ENDLESS,)), "b")
        with pytest.raises(GatewayError) as raised:
            state.jobs.start(ImageRequest(prompt="x", model=(ENDLESS,)), "b")
        assert raised.value.status == 429
        assert state.jobs.find(kept.id, None) is kept


@pytest.mark.anyio
async def test_large_results_push_out_only_those_of_their_holder(
    failing_service: FailingService,
) -> None:
    async with AppState(Settings(target=failing_service.target)) as state:
        jobs = []
        for holder, mib in (("a", 60), ("b", 100), ("b", 100)):
            jobs.append(state.jobs.start(ImageRequest(prompt="x", model=(READY,)), holder))
            assert await jobs[-1].wait_until_ended()
            result = jobs[-1].result
            assert result is not None
            jobs[-1].result = replace(result, images=(image(bytes(mib * 2**20)),))
        assert state.jobs.find(jobs[0].id, None) is jobs[0]
        assert state.jobs.find(jobs[2].id, None) is jobs[2]
        with pytest.raises(GatewayError):
            state.jobs.find(jobs[1].id, None)
