"""Fronts that answer calls about each other's generations."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from redis import Redis
from safelight import (
    GenerationNotFoundError,
    GenerationOutcome,
    Image,
    InvalidRequestError,
    Progress,
    ServiceError,
)
from safelight.v1 import text_to_image_pb2 as pb
from structlog.testing import capture_logs

from safelight_service import redis_link
from safelight_service.auth.tokens import digest_token
from safelight_service.fleet.directory import Directory
from safelight_service.redis_link import RedisLink
from support.redis_server import RedisServer
from tests.client.scripted_service import HOLD, ScriptedService, accepted
from tests.service.fleet.backends import become
from tests.service.fleet.fronts import Front, open_fronts, started

STEPS = 40


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server more time: a busy machine may exceed the service's own limit."""
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 60)


def with_fronts(
    server: RedisServer, act: Callable[..., Awaitable[None]], **options: object
) -> None:
    async def main() -> None:
        fronts = open_fronts(server.url, **options)  # type: ignore[arg-type]
        async with asyncio.timeout(60), fronts as opened:
            await act(*opened)

    server.start()
    asyncio.run(main())


async def make(front: Front, generation_id: str = "", steps: int = STEPS) -> list[bytes]:
    """Generate through a front; return the images."""
    async with front.client.generate(
        "a red circle",
        generation_id=generation_id or None,
        num_inference_steps=steps,
        linger=30,
    ) as generation:
        return [image.data for image in await generation.images()]


async def begin(front: Front, generation_id: str, steps: int = STEPS) -> asyncio.Task[list[bytes]]:
    """Start a generation through a front, and wait until its engine runs it."""
    reached = asyncio.Event()

    async def generate() -> list[bytes]:
        images = []
        async with front.client.generate(
            "a red circle", generation_id=generation_id, num_inference_steps=steps, linger=30
        ) as generation:
            async for event in generation:
                if isinstance(event, Progress):
                    reached.set()
                if isinstance(event, Image):
                    images.append(event.data)
        return images

    task = asyncio.ensure_future(generate())
    waiting = asyncio.ensure_future(reached.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task


def test_a_second_front_joins_and_watches_the_generation_of_the_first(
    redis_server: RedisServer,
) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "shared")
        joined, watched = await asyncio.gather(make(second, "shared"), _watch(second, "shared"))
        assert joined == watched == await running
        assert started(first, second) == [["shared"], []]

    with_fronts(redis_server, act)


async def _watch(front: Front, generation_id: str) -> list[bytes]:
    async with front.client.watch(generation_id) as generation:
        return [image.data for image in await generation.images()]


def test_any_front_finds_a_generation_whose_id_the_service_chose(
    redis_server: RedisServer,
) -> None:
    async def act(first: Front, second: Front) -> None:
        async with first.client.generate("a red circle", num_inference_steps=2) as generation:
            images = [image.data for image in await generation.images()]
        assert await _watch(second, generation.generation_id or "") == images

    with_fronts(redis_server, act)


def test_any_front_cancels_a_generation(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "unwanted", steps=1000)
        assert await second.client.cancel("unwanted") is GenerationOutcome.CANCELLED
        with pytest.raises(Exception, match="cancelled"):
            await running
        assert first.engine.stats().running_count == 0

    with_fronts(redis_server, act)


def test_leaving_a_relayed_call_leaves_the_generation(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "left", steps=1000)
        relayed = await begin(second, "left", steps=1000)
        for task in (relayed, running):
            task.cancel()
        await asyncio.gather(relayed, running, return_exceptions=True)
        assert await first.client.cancel("left") is GenerationOutcome.CANCELLED

    with_fronts(redis_server, act)


def test_unknown_generations_are_not_found_at_any_front(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        for front in (first, second):
            with pytest.raises(GenerationNotFoundError):
                await front.client.cancel("nothing")
            with pytest.raises(GenerationNotFoundError):
                await _watch(front, "nothing")

    with_fronts(redis_server, act)


def test_errors_of_another_front_arrive_with_their_details(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "taken", steps=1000)
        with pytest.raises(Exception, match="another request") as refused:
            await make(second, "taken", steps=7)
        assert refused.value.reason == "GENERATION_EXISTS"  # type: ignore[attr-defined]
        with pytest.raises(InvalidRequestError):
            await make(second, "bad", steps=100_000)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with_fronts(redis_server, act)


def test_the_generations_of_a_front_that_stops_start_again_elsewhere(
    redis_server: RedisServer,
) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "moved", steps=400)
        await first.server.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert await make(second, "moved", steps=400)
        assert started(first, second) == [["moved"], ["moved"]]

    with_fronts(redis_server, act)


def test_a_dead_front_is_replaced_at_once_by_the_next_call(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        redis = Redis.from_url(redis_server.url)
        await make(first, "orphan", steps=1)
        (key,) = redis.keys("safelight:v1:generation:*")
        redis.set(key, "127.0.0.1:1")
        assert await make(second, "orphan", steps=1)
        assert redis.get(key) == second.server.address.encode()

    with_fronts(redis_server, act)


def test_owners_do_not_meet_each_others_generations(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_token(name)}"\n'
            for name in ("alice", "bob")
        )
    )

    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "same", steps=1000)
        bob = type(second.client)(second.server.address, token="bob")
        async with bob:
            with pytest.raises(GenerationNotFoundError):
                await bob.cancel("same")
        assert await second.client.cancel("same") is GenerationOutcome.CANCELLED
        await asyncio.gather(running, return_exceptions=True)

    with_fronts(redis_server, act, tokens_file=file, token="alice")


@pytest.mark.parametrize(
    ("proxies", "address", "may_watch"),
    [
        (("127.0.0.0/8",), "203.0.113.2", True),
        (("127.0.0.0/8",), "203.0.113.1", False),
        ((), "203.0.113.2", False),
    ],
)
def test_relayed_calls_count_for_the_addresses_of_their_callers(
    redis_server: RedisServer, proxies: tuple[str, ...], address: str, may_watch: bool
) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "watched", steps=1000)
        earlier = second.client.watch("watched", metadata=[("x-forwarded-for", "203.0.113.1")])
        later = second.client.watch("watched", metadata=[("x-forwarded-for", address)])
        async with earlier:
            await anext(earlier)
            async with later:
                if may_watch:
                    await anext(later)
                else:
                    with pytest.raises(ServiceError, match="watch") as refused:
                        await anext(later)
                    assert refused.value.reason == "TOO_MANY_WATCHES"
        await first.client.cancel("watched")
        await asyncio.gather(running, return_exceptions=True)

    with_fronts(redis_server, act, trusted_proxies=proxies, max_watches=1)


def test_relays_pass_on_the_deadline_and_the_metadata_that_matter(
    redis_server: RedisServer,
) -> None:
    passed = {
        "authorization": "Bearer secret",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "x-use-cache": "false",
        "x-wait-for-model": "true",
    }

    async def act(front: Front) -> None:
        with ScriptedService() as peer:
            peer.play(accepted(), HOLD)
            directory = Directory(RedisLink(redis_server.url), peer.target)
            await directory.claim("", "elsewhere")
            request = pb.GenerateRequest(inputs="a red circle", generation_id="elsewhere")
            metadata = [*passed.items(), ("x-other", "1"), ("x-forwarded-for", "203.0.113.7")]
            async with front.client.stream(request, timeout=50, metadata=metadata) as generation:
                await anext(generation)
            assert await asyncio.to_thread(peer.cancelled.wait, 20)
            assert passed.items() <= peer.metadata.items()
            assert "x-other" not in peer.metadata
            assert peer.metadata["x-forwarded-for"] == "127.0.0.1"  # no proxy is trusted
            assert peer.time_remaining is not None
            assert 30 < peer.time_remaining < 51  # gRPC rounds up
            await directory.close()

    with_fronts(redis_server, act, count=1)


def test_losing_redis_fails_no_generation(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        running = await begin(first, "steady", steps=200)
        redis_server.stop()
        with capture_logs() as logs:
            others = await asyncio.gather(*(make(second, f"g{i}", steps=2) for i in range(10)))
        assert all(others)
        assert [log["event"] for log in logs].count("directory_unreachable") == 1
        assert len(await running) == 1

    with_fronts(redis_server, act)


def test_the_directory_is_filled_again_when_redis_returns(redis_server: RedisServer) -> None:
    async def act(first: Front, second: Front) -> None:
        redis_server.stop()
        running = await begin(first, "found", steps=1000)
        redis_server.start()
        await become(lambda: bool(Redis.from_url(redis_server.url).keys("*")))
        assert await second.client.cancel("found") is GenerationOutcome.CANCELLED
        await asyncio.gather(running, return_exceptions=True)

    with_fronts(redis_server, act)
