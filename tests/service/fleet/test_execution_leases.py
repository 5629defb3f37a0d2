"""Equal requests at several services, which one of them makes for all."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from redis import Redis
from safelight import CacheStatus, Completed, Image, Progress

from safelight_service import redis_link
from safelight_service.core import events
from safelight_service.fleet.execution_leases import ExecutionLeases
from safelight_service.redis_link import RedisLink
from support.redis_server import RedisServer
from tests.service.fleet.backends import become
from tests.service.fleet.fronts import Front, open_fronts, started


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server more time: a busy machine may exceed the service's own limit."""
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 60)


def with_fronts(
    server: RedisServer, act: Callable[..., Awaitable[None]], count: int = 2, **options: object
) -> None:
    async def main() -> None:
        fronts = open_fronts(server.url, count, shares_results=True, **options)  # type: ignore[arg-type]
        async with asyncio.timeout(60), fronts as opened:
            await act(*opened)

    server.start()
    asyncio.run(main())


class Made:
    """What a caller has received of a generation, while it runs."""

    def __init__(self, front: Front, name: str, steps: int = 40, **options: object) -> None:
        self.steps: list[int] = []
        self.images: list[bytes] = []
        self.completed: Completed | None = None
        self.accepted_id: str | None = None
        self.task = asyncio.ensure_future(self._read(front, name, steps, options))

    async def _read(self, front: Front, name: str, steps: int, options: dict[str, object]) -> None:
        async with front.client.generate(
            "a red circle",
            generation_id=name,
            seed=7,
            num_inference_steps=steps,
            **options,  # type: ignore[arg-type]
        ) as generation:
            async for event in generation:
                if isinstance(event, Progress):
                    self.steps.append(event.step)
                if isinstance(event, Image):
                    self.images.append(event.data)
                if isinstance(event, Completed):
                    self.completed = event
            self.accepted_id = generation.generation_id


def test_equal_requests_at_several_services_are_made_once(redis_server: RedisServer) -> None:
    async def act(*fronts: Front) -> None:
        made = [Made(front, f"g{number}", 100) for number, front in enumerate(fronts)]
        await asyncio.gather(*(each.task for each in made))
        assert sum(map(len, started(*fronts))) == 1
        assert len({each.images[0] for each in made}) == 1
        assert [each.accepted_id for each in made] == ["g0", "g1", "g2"]
        assert all(each.steps == sorted(each.steps) and each.steps for each in made)
        caches = [each.completed.cache for each in made if each.completed]
        assert sorted(caches) == sorted([CacheStatus.MISS, CacheStatus.HIT, CacheStatus.HIT])

    with_fronts(redis_server, act, count=3)


def test_other_requests_and_those_that_decline_the_cache_are_made_apart(
    redis_server: RedisServer,
) -> None:
    async def act(first: Front, second: Front) -> None:
        made = [Made(first, "a"), Made(second, "b", 39), Made(second, "c", use_cache=False)]
        await asyncio.gather(*(each.task for each in made))
        assert [set(ids) for ids in started(first, second)] == [{"a"}, {"b", "c"}]

    with_fronts(redis_server, act)


def test_the_images_are_made_elsewhere_if_the_first_service_stops(
    redis_server: RedisServer,
) -> None:
    async def act(first: Front, second: Front) -> None:
        lost = Made(first, "lost", 150)
        await become(lambda: bool(lost.steps))
        waiting = Made(second, "kept", 150)
        await become(lambda: bool(waiting.steps))
        assert started(first, second) == [["lost"], []]
        await first.server.stop()
        lost.task.cancel()
        await asyncio.gather(lost.task, return_exceptions=True)
        await waiting.task
        assert started(first, second) == [["lost"], ["kept"]]
        assert waiting.images
        assert waiting.steps == sorted(waiting.steps)

    with_fronts(redis_server, act)


def test_the_images_are_made_elsewhere_if_the_first_caller_leaves(
    redis_server: RedisServer,
) -> None:
    async def act(first: Front, second: Front) -> None:
        left = Made(first, "left", 100)
        await become(lambda: bool(left.steps))
        waiting = Made(second, "stays", 100)
        await become(lambda: bool(waiting.steps))
        left.task.cancel()
        await waiting.task
        assert started(first, second) == [["left"], ["stays"]]

    with_fronts(redis_server, act)


def test_losing_redis_fails_neither_service(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        one = Made(first, "one", 100)
        await become(lambda: bool(one.steps))
        other = Made(second, "other", 100)
        await become(lambda: bool(other.steps))
        redis_server.stop()
        await asyncio.gather(one.task, other.task)
        assert started(first, second) == [["one"], ["other"]]
        assert one.images == other.images

    with_fronts(redis_server, act)


def test_the_lease_of_a_dead_service_runs_out(redis_server: RedisServer) -> None:
    shown: list[events.Event] = [events.Progress(3, 20, 0, 0.1, 0.5), events.Queued(2, None)]
    shown += [events.Preview(0, 3, "image/png", 8, 8, b"\x89\0")]
    shown += [events.ModelLoading("shapes", None, 5.5)]

    async def claim_and_die() -> None:
        link = RedisLink(redis_server.url)
        leases = ExecutionLeases(link, lease_s=0.5)
        assert await leases.claim("key", lambda: shown)
        async with aclosing(leases.follow("key")) as followed:
            assert [await anext(followed) for _ in shown] == shown
        await link.close()

    async def take_over() -> None:
        leases = ExecutionLeases(RedisLink(redis_server.url))
        assert await leases.claim("key", list) is None
        assert [event async for event in leases.follow("key")] == shown
        assert await leases.claim("key", list)
        await leases.close()

    redis_server.start()
    asyncio.run(claim_and_die())
    asyncio.run(take_over())


def test_what_no_service_has_written_is_not_shown(redis_server: RedisServer) -> None:
    async def run() -> None:
        leases = ExecutionLeases(RedisLink(redis_server.url))
        name = "safelight:v1:execution:" + hashlib.sha256(b"key").hexdigest()
        for text in ("{", "[1]", '[["Image", {}]]', '[["Progress", {"step": "x"}]]'):
            with Redis.from_url(redis_server.url) as redis:
                redis.hset(name, "present", text)
                redis.pexpire(name, 50)
            assert [event async for event in leases.follow("key")] == []
        await leases.close()

    redis_server.start()
    asyncio.run(run())
