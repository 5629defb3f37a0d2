"""What the benchmark of fleets counts, and the engine that it routes to."""

import asyncio
from collections import Counter

import pytest

from benchmarks.fleet.goals import Goal, percentile
from safelight_service.core.events import Completed, Event
from safelight_service.core.request import GenerationRequest, Parameters
from safelight_service.core.timeline import Timeline
from support.fleet.merging_engine import MergingEngine


@pytest.mark.parametrize(("is_least", "verdict"), [(True, "MISSED"), (False, "met")])
def test_a_goal_bounds_a_figure(is_least: bool, verdict: str) -> None:
    assert str(Goal("gain", 2, 1.9, is_least=is_least)).endswith(verdict)


def test_a_percentile_bounds_its_share_of_the_values() -> None:
    assert percentile([float(value) for value in range(100)], 0.95) == 95


def test_images_of_one_size_share_steps_and_sizes_take_turns() -> None:
    ended: list[int] = []

    async def generate(engine: MergingEngine, side_px: int) -> Counter[int]:
        request = GenerationRequest(
            "a", Parameters(width=side_px, height=side_px, num_inference_steps=4)
        )

        def ignore(event: Event) -> None:
            pass

        async with engine.prepare(request, ignore, Timeline()) as prepared:
            completed = await engine.run(prepared, ignore)
        ended.append(side_px)
        assert isinstance(completed, Completed)
        return Counter(completed.widths)

    async def main() -> list[Counter[int]]:
        engine = MergingEngine(0.001, 8)
        return await asyncio.gather(*(generate(engine, side_px) for side_px in (64, 64, 128)))

    assert asyncio.run(main()) == [Counter({2: 4}), Counter({2: 4}), Counter({1: 4})]
    assert sorted(ended[:2]) == [64, 64]
