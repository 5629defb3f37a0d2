"""Usage: what the engine charges adds up to the time in which its device was at work."""

import asyncio
import time
from typing import Any

from safelight_service.core.backend import BackendStats
from safelight_service.core.errors import InternalError
from safelight_service.core.events import Completed, Event, Progress
from safelight_service.core.request import GenerationRequest, Parameters, PreviewOptions
from safelight_service.core.timeline import Timeline
from support.engine.device_time import DeviceTime, MeasuredEngine, open_measured_engine
from support.engine.tiny_models import MERGING

TOLERANCE = 0.01
SIDE = 96
BROKEN_WIDTH = 64


async def generate(
    measured: MeasuredEngine,
    timeline: Timeline,
    *,
    steps: int,
    width: int = SIDE,
    image_count: int = 1,
    cancel_after: int | None = None,
) -> Completed | None:
    """Make images; None if they are cancelled after some steps."""
    engine = measured.engine
    request = GenerationRequest(
        f"a red circle for {timeline.token}",
        Parameters(num_inference_steps=steps, seed=0, width=width, height=SIDE),
        image_count=image_count,
        preview=PreviewOptions(interval_steps=2),
    )
    has_stepped = asyncio.Event()

    def note(event: Event) -> None:
        if isinstance(event, Progress) and event.step == cancel_after:
            has_stepped.set()

    async with engine.prepare(request, note, timeline) as prepared:
        running = asyncio.ensure_future(engine.run(prepared, note))
        if cancel_after is None:
            return await running
        await has_stepped.wait()
        running.cancel()
        await asyncio.wait([running])
        return None


def break_wide(_: Any, arguments: Any) -> None:
    if arguments[0].shape[-1] == BROKEN_WIDTH // 8:
        raise RuntimeError("a broken decoder")


class Round:
    """One engine with several callers, from its start to its end."""

    def __init__(self) -> None:
        self.timelines = {name: Timeline(token=name, observed=name) for name in "abcde"}
        self.timelines["d"].abandoned_at = 0.0
        self.completed: dict[str, Completed] = {}
        self.stats: BackendStats
        self.forwards: DeviceTime
        self.wall_s = 0.0

    async def run(self) -> None:
        """Run three that complete, one of them abandoned, one that is cancelled, one that fails."""
        began_at = time.monotonic()
        async with open_measured_engine(16, MERGING) as measured:
            model = measured.engine.find_loaded()
            assert model is not None
            model.adapter.pipeline.vae.decoder.register_forward_pre_hook(break_wide)
            requests: dict[str, dict[str, Any]] = {
                "a": {"steps": 3, "image_count": 3},
                "b": {"steps": 5},
                "c": {"steps": 60, "cancel_after": 3},
                "d": {"steps": 3},
                "e": {"steps": 3, "width": BROKEN_WIDTH},
            }
            outcomes = await asyncio.gather(
                *(
                    generate(measured, self.timelines[name], **each)
                    for name, each in requests.items()
                ),
                return_exceptions=True,
            )
        self.wall_s = time.monotonic() - began_at
        self.stats, self.forwards = measured.engine.stats(), measured.time
        for name, outcome in zip(requests, outcomes, strict=True):
            if isinstance(outcome, Completed):
                self.completed[name] = outcome
            else:
                assert outcome is None if name == "c" else isinstance(outcome, InternalError)

    @property
    def deviation(self) -> float:
        """Relative difference of the charges and the busy time."""
        busy_s = sum(self.stats.busy_s.values())
        return abs(sum(self.stats.device_time_s.values()) / busy_s - 1)


def test_the_usage_of_all_callers_is_the_busy_time_of_the_device() -> None:
    done = Round()
    asyncio.run(done.run())
    assert done.deviation <= TOLERANCE
    assert sum(done.stats.busy_s.values()) <= done.wall_s
    charged = {token: seconds for (_, token), seconds in done.stats.device_time_s.items()}
    assert charged.keys() == {"", *done.timelines}  # "" made an image to warm up
    assert done.completed.keys() == {"a", "b", "d"}
    for name, completed in done.completed.items():
        assert abs(completed.usage.device_time_s - charged[name]) < 1e-6
        assert completed.usage.step_count == completed.step_count
    assert done.completed["a"].usage.image_count == 3
    assert done.completed["a"].usage.pixel_count == 3 * SIDE * SIDE
    assert max(done.completed["a"].widths) > 1
    for name, timeline in done.timelines.items():
        assert abs(timeline.usage.device_time_s - charged[name]) < 1e-6
        assert timeline.usage.step_count >= 3
        assert charged[name] > 0.999 * done.forwards.seconds[name] > 0
