"""The life of generations, on an engine that follows a script."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import capture_logs

from safelight_service.auth.tokens import Caller, current_caller, digest_token
from safelight_service.cache import ResultCache
from safelight_service.core.backend import Backend, ModelChangedError, Prepared
from safelight_service.core.errors import (
    DeadlineError,
    GenerationCancelledError,
    GenerationExistsError,
    GenerationNotFoundError,
    NoEngineError,
    OutOfMemoryError,
    QueueFullError,
    SafelightError,
    StoppingError,
    TimeLimitError,
    TooManyWatchesError,
    UnauthenticatedError,
)
from safelight_service.core.events import (
    Accepted,
    CacheUse,
    Completed,
    Event,
    EventCallback,
    Image,
    Progress,
    Queued,
    Timings,
    Usage,
)
from safelight_service.core.request import (
    GenerationRequest,
    Parameters,
    PreviewOptions,
    ResolvedOutput,
    ResolvedParameters,
    ResolvedPreview,
    ResolvedRequest,
)
from safelight_service.core.tenant import Tenant
from safelight_service.core.timeline import Timeline
from safelight_service.generations.generations import Generations
from safelight_service.generations.state import Generation, State
from safelight_service.settings import CacheSettings, GenerationSettings

PARAMETERS = ResolvedParameters(None, None, 4, 64, 64, "euler", 7)
ACCEPTED = Accepted(
    "", "model", "", ResolvedRequest("x", PARAMETERS, 1, ResolvedOutput("image/png", None), None)
)
IMAGE = Image(0, "image/png", 64, 64, 7, False, "", b"png")
COMPLETED = Completed(Timings(0, 0, 0, 0, 0, 0, 0), 4, {1: 4})


def progress(step: int) -> Progress:
    return Progress(step, 4, 0, 0.0, 0.0)


class ScriptedEngine:
    """Engine that runs each request by its own script; tests give the events."""

    def __init__(self) -> None:
        self.started: list[GenerationRequest] = []
        self.default_model = "model"
        self.running: dict[str, asyncio.Queue[Event | BaseException]] = {}
        self.timelines: dict[str, Timeline] = {}
        self.refusal: SafelightError | None = None
        self.updates = 0
        """Runs before which the model gets another revision."""
        self.has_ended = asyncio.Event()
        """Set once a generation has ended."""

    @asynccontextmanager
    async def prepare(
        self, request: GenerationRequest, on_event: EventCallback, timeline: Timeline
    ) -> AsyncIterator[Prepared]:
        if self.refusal is not None:
            raise self.refusal
        self.started.append(request)
        self.running[request.generation_id] = asyncio.Queue()
        self.timelines[request.generation_id] = timeline
        preview = request.preview.interval_steps
        accepted = replace(
            ACCEPTED,
            generation_id=request.generation_id,
            model_revision=str(len(self.started)),
            request=replace(
                ACCEPTED.request,
                inputs=request.inputs,
                preview=ResolvedPreview(preview, "image/jpeg", 64) if preview else None,
            ),
        )
        try:
            yield Prepared(accepted, "identity", timeline)
        finally:
            del self.running[request.generation_id]
            self.has_ended.set()

    async def run(self, prepared: Prepared, on_event: EventCallback) -> Completed:
        if self.updates:
            self.updates -= 1
            raise ModelChangedError
        on_event(prepared.accepted)
        script = self.running[prepared.accepted.generation_id]
        while not isinstance(event := await script.get(), Completed):
            if isinstance(event, BaseException):
                raise event
            on_event(event)
        return event


class Watcher:
    """Reads a stream of events to its end."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self.events: list[Event] = []
        self.error: BaseException | None = None
        self.task = asyncio.ensure_future(self._read(events))

    async def _read(self, events: AsyncGenerator[Event, None]) -> None:
        try:
            async for event in events:
                self.events.append(event)
        except SafelightError as error:
            self.error = error
        finally:
            await events.aclose()

    @property
    def has_ended(self) -> bool:
        return self.task.done()

    async def leave(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task


async def settle() -> None:
    """Run the event loop until nothing more can happen."""
    for _ in range(20):
        await asyncio.sleep(0)


class Scene:
    """Generations on a scripted engine."""

    def __init__(
        self,
        *,
        replays_unseeded: bool = False,
        memory_mib: int = 256,
        heartbeat_s: float = 5.0,
        **settings: Any,
    ) -> None:
        self.engine = ScriptedEngine()
        cache = ResultCache.open(
            CacheSettings(replay_unseeded=replays_unseeded, memory_mib=memory_mib)
        )
        self.generations = Generations(
            cast(Backend, self.engine),
            cache,
            GenerationSettings(**settings),
            heartbeat_s=heartbeat_s,
        )

    async def generate(self, generation_id: str = "a", inputs: str = "x", **more: Any) -> Watcher:
        request = GenerationRequest(inputs, generation_id=generation_id, **more)
        watcher = Watcher(self.generations.generate(request))
        await settle()
        return watcher

    async def watch(self, generation_id: str = "a") -> Watcher:
        watcher = Watcher(self.generations.watch(generation_id))
        await settle()
        return watcher

    async def happen(self, *events: Event | BaseException, generation_id: str = "a") -> None:
        for event in events:
            self.engine.running[generation_id].put_nowait(event)
            await settle()


def play(act: Callable[[Scene], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        await act(Scene(**settings))

    asyncio.run(run())


def test_an_equal_request_joins_and_gets_the_present_state_first() -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate()
        await scene.happen(Queued(1, None), progress(1), progress(2))
        second = await scene.generate()
        third = await scene.watch()
        await scene.happen(IMAGE, COMPLETED)
        assert len(scene.engine.started) == 1
        accepted = first.events[0]
        assert isinstance(accepted, Accepted)
        assert accepted.generation_id == "a"
        assert second.events == [accepted, progress(2), IMAGE, COMPLETED]
        assert third.events == second.events
        assert first.has_ended
        assert second.has_ended

    play(act)


def test_a_watcher_hears_the_latest_event_again_while_nothing_happens() -> None:
    """Proxies cut silent streams, also while other generations take all steps of the device."""

    async def act(scene: Scene) -> None:
        await scene.generate()
        async with aclosing(scene.generations.watch("a")) as heard:
            assert isinstance(await anext(heard), Accepted)
            for event in (Queued(1, None), progress(1)):
                await scene.happen(event)
                assert [await anext(heard) for _ in range(3)] == [event] * 3

    play(act, heartbeat_s=0.005)


def test_no_sign_of_life_goes_back() -> None:
    generation = Generation("", "a", GenerationRequest("x"))
    heard: list[Event | None] = []
    for event in (
        ACCEPTED,
        Queued(1, None),
        progress(1),
        IMAGE,
        replace(progress(1), image_index=1),
    ):
        generation.publish(event)
        heard.append(generation.sign_of_life)
    assert heard == [None, Queued(1, None), progress(1), None, replace(progress(1), image_index=1)]


def test_images_come_in_order_of_their_index() -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate()
        await scene.happen(*(replace(IMAGE, index=index) for index in (2, 0)))
        second = await scene.watch()
        await scene.happen(replace(IMAGE, index=1), COMPLETED)
        for watcher in (first, second, await scene.watch()):
            images = [event.index for event in watcher.events if isinstance(event, Image)]
            assert images == [0, 1, 2]

    play(act)


def test_a_finished_generation_is_replayed_while_it_is_kept() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate()
        await scene.happen(progress(4), IMAGE, COMPLETED)
        for again in (await scene.generate(), await scene.watch()):
            assert [type(event) for event in again.events] == [Accepted, Image, Completed]
        assert len(scene.engine.started) == 1
        assert scene.generations.cancel("a") is State.COMPLETED

    play(act)


def test_refused_generations_do_not_flood_the_log() -> None:
    async def act(scene: Scene) -> None:
        scene.engine.refusal = QueueFullError(4, 1.0)
        with capture_logs() as logs:
            for number in range(100):
                await scene.generate(str(number))
            scene.engine.refusal = None
            await scene.generate("made")
            await scene.happen(IMAGE, COMPLETED, generation_id="made")
        ends = [line for line in logs if line["event"] == "generation_ended"]
        assert 1 <= len(ends[:-1]) <= 20
        assert {line["error_type"] for line in ends[:-1]} == {"QueueFullError"}
        assert ends[-1]["generation_id"] == "made"

    play(act)


@pytest.mark.parametrize("seed", [None, 7])
def test_a_request_whose_model_changes_is_prepared_again(seed: int | None) -> None:
    async def act(scene: Scene) -> None:
        scene.engine.updates = 2
        watcher = await scene.generate(parameters=Parameters(seed=seed))
        await scene.happen(IMAGE, COMPLETED)
        accepted = watcher.events[0]
        assert isinstance(accepted, Accepted)
        assert accepted.model_revision == "3"
        assert [type(event) for event in watcher.events] == [Accepted, Image, Completed]
        scene.engine.updates = 3
        watcher = await scene.generate("b", "y", parameters=Parameters(seed=seed))
        assert isinstance(watcher.error, NoEngineError)
        assert scene.engine.updates == 0

    play(act)


@pytest.mark.parametrize("settings", [{"keep_s": 0}, {"keep_mib": 0}])
def test_what_is_not_kept_is_forgotten(settings: dict[str, int]) -> None:
    async def act(scene: Scene) -> None:
        await scene.generate()
        await scene.happen(IMAGE, COMPLETED)
        assert isinstance((await scene.watch()).error, GenerationNotFoundError)
        await scene.generate()
        assert len(scene.engine.started) == 2

    play(act, **settings)


def test_the_one_that_ended_first_is_forgotten_first() -> None:
    async def act(scene: Scene) -> None:
        for generation_id in ("a", "b"):
            await scene.generate(generation_id)
            large = replace(IMAGE, data=bytes(600 * 1024))
            await scene.happen(large, COMPLETED, generation_id=generation_id)
        assert isinstance((await scene.watch("a")).error, GenerationNotFoundError)
        assert (await scene.watch("b")).events[-1] == COMPLETED

    play(act, keep_mib=1)


def test_an_id_that_is_forgotten_runs_again_with_the_same_open_seed() -> None:
    async def act(scene: Scene) -> None:
        for _ in range(2):
            await scene.generate()
            await scene.happen(IMAGE, COMPLETED)
        await scene.generate("b")
        first, again, other = (request.open_seed for request in scene.engine.started)
        assert first == again
        assert first is not None
        assert other != first

    play(act, keep_s=0)


def test_an_id_from_the_service_draws_its_open_seed() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate("")
        assert [request.open_seed for request in scene.engine.started] == [None]

    play(act)


@pytest.mark.parametrize("is_done", [False, True])
def test_another_request_under_the_same_id_is_refused(is_done: bool) -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate()
        if is_done:
            await scene.happen(IMAGE, COMPLETED)
        assert isinstance((await scene.generate(inputs="y")).error, GenerationExistsError)
        assert len(scene.engine.started) == 1
        assert first.error is None

    play(act)


def test_how_a_caller_waits_is_not_part_of_the_request() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate(waits_for_model=True, deadline_at=1e9)
        assert (await scene.generate()).error is None
        assert len(scene.engine.started) == 1

    play(act)


def test_it_goes_on_until_the_last_watcher_has_left() -> None:
    async def act(scene: Scene) -> None:
        first, second = await scene.generate(), await scene.watch()
        await first.leave()
        await settle()
        assert scene.engine.running
        await second.leave()
        await settle()
        assert not scene.engine.running
        assert isinstance((await scene.watch()).error, GenerationCancelledError)

    play(act)


def test_it_lingers_for_watchers_that_return() -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate(linger_s=3600)
        await scene.happen(progress(1))
        await first.leave()
        await settle()
        assert scene.engine.running
        back = await scene.generate(linger_s=3600)
        await scene.happen(IMAGE, COMPLETED)
        assert [type(event) for event in back.events] == [Accepted, Progress, Image, Completed]

    play(act)


def test_it_lingers_no_longer_than_asked() -> None:
    async def act(scene: Scene) -> None:
        watcher = await scene.generate(linger_s=1e-3)
        await watcher.leave()
        await scene.engine.has_ended.wait()
        await settle()
        assert not scene.engine.running
        assert scene.generations.cancel("a") is State.CANCELLED

    play(act)


def test_the_engine_knows_which_work_has_watchers() -> None:
    """Abandoned work runs last; a deadline does not end work that others have joined."""

    async def act(scene: Scene) -> None:
        first = await scene.generate(linger_s=3600)
        timeline = scene.engine.timelines["a"]
        assert timeline.abandoned_at is timeline.joined_at is None
        await first.leave()
        assert timeline.abandoned_at is not None
        await scene.watch()
        assert timeline.abandoned_at is None
        assert timeline.joined_at is not None

    play(act)


def test_shared_work_is_abandoned_once_no_generation_has_watchers() -> None:
    async def act(scene: Scene) -> None:
        watchers = [await scene.generate(name, **SEED, linger_s=3600) for name in "ab"]
        timeline = scene.engine.timelines["a"]
        assert timeline.joined_at is not None
        await watchers[0].leave()
        assert timeline.abandoned_at is None
        scene.generations.cancel("b")
        assert timeline.abandoned_at is not None

    play(act)


@pytest.mark.parametrize(("max_lingering", "left"), [(2, "bcx"), (0, "")])
def test_a_caller_has_a_limit_of_lingering_generations(max_lingering: int, left: str) -> None:
    """The one that was left first ends; others' do not count, nor those watched again."""

    async def act(scene: Scene) -> None:
        for name in "xabc":
            tenant = Tenant("other" if name == "x" else "own")
            await (await scene.generate(name, linger_s=3600, tenant=tenant)).leave()
        await settle()
        assert sorted(scene.engine.running) == sorted(left)
        if left:
            await scene.watch("b")
            await (await scene.generate("d", linger_s=3600, tenant=Tenant("own"))).leave()
            await settle()
            assert sorted(scene.engine.running) == ["b", "c", "d", "x"]

    play(act, max_lingering=max_lingering)


def test_a_caller_comes_back_to_its_generations_however_few_watches_it_may_have() -> None:
    async def act(scene: Scene) -> None:
        for generation_id in "abc":
            left = await scene.generate(generation_id, linger_s=60)
            await left.leave()
        back = [await scene.generate(generation_id, linger_s=60) for generation_id in "abc"]
        assert [watcher.error for watcher in back] == [None] * 3

    play(act, max_watches=0)


def test_watches_beyond_those_that_a_caller_may_have_are_refused() -> None:
    async def act(scene: Scene) -> None:
        first, second = await scene.generate(), await scene.watch()
        for refused in (await scene.watch(), await scene.generate()):
            assert isinstance(refused.error, TooManyWatchesError)
        await second.leave()
        await scene.happen(IMAGE, COMPLETED)
        assert first.events[-1] == COMPLETED
        assert (await scene.watch()).events[-1] == COMPLETED
        assert (await scene.generate()).events[-1] == COMPLETED

    play(act, max_watches=1)


def test_cancelling_reaches_all_watchers_and_can_be_repeated() -> None:
    async def act(scene: Scene) -> None:
        watchers = [await scene.generate(), await scene.watch()]
        for _ in range(2):
            assert scene.generations.cancel("a") is State.CANCELLED
        await settle()
        assert not scene.engine.running
        assert {type(watcher.error) for watcher in watchers} == {GenerationCancelledError}

    play(act)


@pytest.mark.parametrize(
    ("end", "is_over"),
    [
        ("cancel", True),
        ("linger", True),
        ("deadline", True),
        ("time limit", True),
        ("leave", False),
        ("leave early", False),
        ("leave another's", False),
        ("close", False),
    ],
)
def test_the_engine_knows_which_work_nobody_will_continue(end: str, is_over: bool) -> None:
    """A caller that has lost its connection, or its service, calls again."""
    left_s = {"deadline": 0.1, "leave another's": 0.1, "leave early": 100.0}.get(end)

    async def act(scene: Scene) -> None:
        watcher = await scene.generate(
            linger_s=0.001 if end == "linger" else 0,
            deadline_at=None if left_s is None else time.monotonic() + left_s,
        )
        match end:
            case "cancel":
                scene.generations.cancel("a")
            case "close":
                await scene.generations.close()
            case "leave another's":
                other = await scene.watch()
                await watcher.leave()
                await other.leave()
            case "time limit":
                pass
            case _:
                await watcher.leave()
        await scene.engine.has_ended.wait()
        assert (scene.engine.timelines["a"].cancelled_at is not None) == is_over

    play(act, max_s=1e-3 if end == "time limit" else 3600)


def test_a_failure_reaches_watchers_and_an_equal_request_restarts_it() -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate()
        await scene.happen(OutOfMemoryError())
        assert isinstance(first.error, OutOfMemoryError)
        assert isinstance((await scene.watch()).error, OutOfMemoryError)
        assert scene.generations.cancel("a") is State.FAILED
        again = await scene.generate()
        await scene.happen(IMAGE, COMPLETED)
        assert again.events[-1] == COMPLETED

    play(act)


def test_what_was_refused_before_it_was_accepted_leaves_nothing_behind() -> None:
    async def act(scene: Scene) -> None:
        async def refuse(prepared: Prepared, on_event: EventCallback) -> Completed:
            raise OutOfMemoryError

        scene.engine.run = refuse  # type: ignore[method-assign]
        assert isinstance((await scene.generate()).error, OutOfMemoryError)
        assert isinstance((await scene.watch()).error, GenerationNotFoundError)

    play(act)


def test_no_generation_takes_longer_than_the_service_allows() -> None:
    async def act(scene: Scene) -> None:
        watcher = await scene.generate()
        await asyncio.wait({watcher.task})
        assert isinstance(watcher.error, TimeLimitError)
        assert not scene.engine.running

    play(act, max_s=1e-3)


@pytest.mark.parametrize("fault", [ValueError("secret"), asyncio.CancelledError(), TimeoutError()])
def test_a_fault_of_the_engine_ends_the_generation(fault: BaseException) -> None:
    async def act(scene: Scene) -> None:
        watcher = await scene.generate()
        await scene.happen(fault)
        assert str(watcher.error).startswith("internal error, id=")

    play(act)


def test_generations_of_owners_that_are_gone_end_and_are_forgotten() -> None:
    async def act(scene: Scene) -> None:
        current_caller.set(caller("gone"))
        await scene.generate("kept")
        await scene.happen(IMAGE, COMPLETED, generation_id="kept")
        running = await scene.generate("running")
        left = await scene.generate("left", linger_s=60)
        await left.leave()
        current_caller.set(caller("stays"))
        other = await scene.generate("other")
        scene.generations.end_except({"stays", "newcomer"})
        await settle()
        assert isinstance(running.error, UnauthenticatedError)
        assert list(scene.engine.running) == ["other"]
        assert not other.has_ended
        current_caller.set(caller("gone"))
        for generation_id in ("kept", "running", "left"):
            error = (await scene.watch(generation_id)).error
            assert isinstance(error, GenerationNotFoundError)

    play(act)


def test_closing_ends_all_of_them() -> None:
    async def act(scene: Scene) -> None:
        running, finished = await scene.generate("a"), await scene.generate("b")
        await scene.happen(IMAGE, COMPLETED, generation_id="b")
        await scene.generations.close()
        await settle()
        assert isinstance(running.error, StoppingError)
        assert finished.error is None
        assert not scene.engine.running
        assert isinstance((await scene.watch("b")).error, GenerationNotFoundError)

    play(act)


SEED: dict[str, Any] = {"parameters": Parameters(seed=7)}


def cache_of(watcher: Watcher) -> CacheUse:
    completed = watcher.events[-1]
    assert isinstance(completed, Completed)
    return completed.cache


def test_equal_requests_at_the_same_time_are_made_once() -> None:
    """Fault 21: 8 identical requests at once, cache on."""

    async def act(scene: Scene) -> None:
        watchers = [await scene.generate(str(number), **SEED) for number in range(4)]
        await scene.happen(progress(1), generation_id="0")
        watchers += [await scene.generate(str(number), **SEED) for number in range(4, 8)]
        await scene.happen(IMAGE, COMPLETED, generation_id="0")
        assert list(scene.engine.running) == []
        for number, watcher in enumerate(watchers):
            accepted = watcher.events[0]
            assert isinstance(accepted, Accepted)
            assert accepted.generation_id == str(number)
            assert IMAGE in watcher.events
            assert cache_of(watcher) is CacheUse.MISS
        late = watchers[-1].events
        assert [type(event) for event in late] == [Accepted, Progress, Image, Completed]

    play(act)


def test_who_joined_gets_the_image_although_the_first_one_leaves() -> None:
    """Fault 22: single-flight leader cancels."""

    async def act(scene: Scene) -> None:
        first, second = await scene.generate("a", **SEED), await scene.generate("b", **SEED)
        await first.leave()
        await settle()
        await scene.happen(IMAGE, COMPLETED, generation_id="a")
        assert IMAGE in second.events
        assert scene.generations.cancel("a") is State.CANCELLED
        assert scene.generations.cancel("b") is State.COMPLETED

    play(act)


def usage_of(watcher: Watcher) -> Usage:
    completed = watcher.events[-1]
    assert isinstance(completed, Completed)
    return completed.usage


def test_work_counts_for_the_token_that_it_was_begun_for_and_only_once() -> None:
    used = Usage(2.5, 1, 4096, 4)

    async def act(scene: Scene) -> None:
        current_caller.set(caller("one", "team"))
        first = await scene.generate("a", **SEED)
        current_caller.set(caller("two", "team"))
        joined = await scene.generate("b", **SEED)
        assert scene.engine.timelines["a"].token == "one"
        with capture_logs() as log:
            await scene.happen(IMAGE, replace(COMPLETED, usage=used))
            cached = await scene.generate("c", **SEED)
        assert [usage_of(each) for each in (first, joined, cached)] == [used, Usage(), Usage()]
        again = await scene.watch("c")
        assert usage_of(again) == Usage()
        logged = {line["generation_id"]: line["usage"]["device_time_s"] for line in log}
        assert logged == {"a": 2.5, "b": 0, "c": 0}

    play(act)


@pytest.mark.parametrize("ending", ["cancelled", "failed"])
def test_the_log_has_the_work_of_those_that_did_not_complete(ending: str) -> None:
    async def act(scene: Scene) -> None:
        await scene.generate("a", **SEED)
        timeline = scene.engine.timelines["a"]
        timeline.device_time_s, timeline.pixel_count = 1.25, 4096
        timeline.add_image().encoded_at = 1.0
        timeline.add_image().step_ends += [1.0, 2.0]
        with capture_logs() as log:
            if ending == "cancelled":
                scene.generations.cancel("a")
            else:
                await scene.happen(OutOfMemoryError())
        [line] = log
        assert line["state"] == ending
        assert line["usage"] == {
            "device_time_s": 1.25,
            "image_count": 1,
            "pixel_count": 4096,
            "step_count": 2,
        }

    play(act)


def test_what_all_have_left_is_not_joined() -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate("a", **SEED)
        await first.leave()
        second = await scene.generate("b", **SEED)
        assert list(scene.engine.running) == ["b"]
        await scene.happen(IMAGE, COMPLETED, generation_id="b")
        assert second.events[-1] == replace(COMPLETED, cache=CacheUse.MISS)

    play(act)


def test_a_deadline_is_that_of_its_caller_alone() -> None:
    async def act(scene: Scene) -> None:
        first, second = await scene.generate("a", **SEED), await scene.generate("b", **SEED)
        await scene.happen(DeadlineError(1, 2), generation_id="a")
        assert isinstance(first.error, DeadlineError)
        await scene.happen(IMAGE, COMPLETED, generation_id="b")
        assert IMAGE in second.events

    play(act)


def test_a_made_result_is_replayed_from_the_cache() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate("a", **SEED)
        await scene.happen(IMAGE, COMPLETED)
        hit = await scene.generate("b", preview=PreviewOptions(interval_steps=1), **SEED)
        assert [type(event) for event in hit.events] == [Accepted, Image, Completed]
        assert cache_of(hit) is CacheUse.HIT
        assert not scene.engine.running
        await scene.generate("c", "another", **SEED)
        await scene.generate("d", uses_cache=False, **SEED)
        await scene.generate("e")
        assert list(scene.engine.running) == ["c", "d", "e"]

    play(act)


def test_an_image_that_could_not_be_signed_is_made_again_for_the_next_caller() -> None:
    async def act(scene: Scene) -> None:
        first = await scene.generate("a", **SEED)
        await scene.happen(replace(IMAGE, is_cacheable=False), COMPLETED)
        assert cache_of(first) is CacheUse.BYPASS
        await scene.generate("b", **SEED)
        assert list(scene.engine.running) == ["b"]

    play(act)


def caller(name: str, cache_group: str | None = None) -> Caller:
    return Caller(name=name, sha256=digest_token(name), cache_group=cache_group)


@pytest.mark.parametrize(
    ("first", "second", "is_shared"),
    [
        (None, None, True),
        (caller("one"), caller("one"), True),
        (caller("one"), caller("two"), False),
        (caller("one"), None, False),
        (caller("one", "team"), caller("two", "team"), True),
        (caller("one", "team"), caller("two", "other"), False),
        (caller("one", "team"), caller("two"), False),
        (caller("one", "two"), caller("two"), False),
    ],
)
@pytest.mark.parametrize("is_done", [False, True])
def test_callers_share_images_within_their_cache_group_only(
    first: Caller | None, second: Caller | None, is_shared: bool, is_done: bool
) -> None:
    async def act(scene: Scene) -> None:
        current_caller.set(first)
        await scene.generate("a", **SEED)
        if is_done:
            await scene.happen(IMAGE, COMPLETED)
        current_caller.set(second)
        watcher = await scene.generate("b", **SEED)
        if is_shared:
            if not is_done:
                await scene.happen(IMAGE, COMPLETED)
            assert cache_of(watcher) is (CacheUse.HIT if is_done else CacheUse.MISS)
        else:
            await scene.happen(IMAGE, COMPLETED, generation_id="b")
            assert cache_of(watcher) is CacheUse.MISS
        assert ("a" in scene.engine.running) == (not is_shared and not is_done)

    play(act)


def test_a_flood_of_one_caller_leaves_the_cached_results_of_others() -> None:
    large = replace(IMAGE, data=bytes(200_000))

    async def act(scene: Scene) -> None:
        current_caller.set(caller("one"))
        await scene.generate("a", **SEED)
        await scene.happen(large, COMPLETED)
        current_caller.set(caller("flood"))
        for number in range(10):
            await scene.generate(str(number), inputs=str(number), **SEED)
            await scene.happen(large, COMPLETED, generation_id=str(number))
        current_caller.set(caller("one"))
        assert cache_of(await scene.generate("b", **SEED)) is CacheUse.HIT

    play(act, memory_mib=1)


def test_a_request_for_other_previews_gets_its_own_execution() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate("a", **SEED)
        await scene.generate("b", preview=PreviewOptions(interval_steps=1), **SEED)
        assert list(scene.engine.running) == ["a", "b"]

    play(act)


def test_what_failed_is_not_kept() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate("a", **SEED)
        await scene.happen(IMAGE, OutOfMemoryError())
        await scene.generate("b", **SEED)
        assert list(scene.engine.running) == ["b"]

    play(act)


def test_open_seeds_are_replayed_where_the_operator_wants_it() -> None:
    async def act(scene: Scene) -> None:
        await scene.generate("a")
        await scene.happen(replace(IMAGE, seed=11), COMPLETED)
        hit = await scene.generate("b")
        accepted = hit.events[0]
        assert isinstance(accepted, Accepted)
        assert accepted.request.parameters.seed == 11
        assert cache_of(hit) is CacheUse.HIT

    play(act, replays_unseeded=True)


class Lives(RuleBasedStateMachine):
    """State machine: each id runs at most once, and only while watched, in any order of calls."""

    IDS = ("a", "b")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.scene = Scene()
        self.watchers: list[tuple[str, Watcher]] = []

    def do(self, act: Awaitable[Any]) -> Any:
        async def run() -> Any:
            result = await act
            await settle()
            return result

        return self.loop.run_until_complete(run())

    async def cancel_by_id(self, generation_id: str) -> None:
        with suppress(GenerationNotFoundError):
            assert self.scene.generations.cancel(generation_id) is not State.RUNNING

    async def close(self) -> None:
        await self.scene.generations.close()

    def running(self) -> list[str]:
        return sorted(self.scene.engine.running)

    @rule(generation_id=st.sampled_from(IDS), inputs=st.sampled_from("xy"))
    def generate(self, generation_id: str, inputs: str) -> None:
        self.watchers.append((generation_id, self.do(self.scene.generate(generation_id, inputs))))

    @rule(generation_id=st.sampled_from(IDS))
    def watch(self, generation_id: str) -> None:
        self.watchers.append((generation_id, self.do(self.scene.watch(generation_id))))

    @precondition(lambda self: self.watchers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.watchers) - 1))
        self.do(self.watchers.pop(place)[1].leave())

    @rule(generation_id=st.sampled_from(IDS))
    def cancel(self, generation_id: str) -> None:
        self.do(self.cancel_by_id(generation_id))
        assert generation_id not in self.running()

    @precondition(lambda self: self.running())
    @rule(data=st.data(), event=st.sampled_from([progress(1), COMPLETED, OutOfMemoryError()]))
    def happen(self, data: st.DataObject, event: Event | BaseException) -> None:
        generation_id = data.draw(st.sampled_from(self.running()))
        self.do(self.scene.happen(event, generation_id=generation_id))

    @invariant()
    def what_runs_is_watched(self) -> None:
        watched = {name for name, watcher in self.watchers if not watcher.has_ended}
        assert set(self.running()) == watched

    @invariant()
    def every_watcher_that_was_let_go_knows_why(self) -> None:
        for _, watcher in self.watchers:
            if watcher.has_ended:
                assert (watcher.error is None) == (COMPLETED in watcher.events)

    def teardown(self) -> None:
        self.do(self.close())
        assert not self.running()
        for _, watcher in self.watchers:
            self.do(watcher.leave())
        self.loop.close()


Lives.TestCase.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=20, deadline=None, derandomize=True
)
TestLives = Lives.TestCase
