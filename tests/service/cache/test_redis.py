"""A Redis server that is up, down, paused or full of garbage."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from structlog.testing import capture_logs

from safelight_service import redis_link
from safelight_service.cache import ResultCache
from safelight_service.cache.redis import MAX_VALUE_BYTES, RedisTier
from safelight_service.cache.results import MalformedResultError, pack
from safelight_service.redis_link import RETRY_S
from support.redis_server import RedisServer
from tests.service.cache.sample_results import make_result

pytestmark = pytest.mark.anyio

RESULT, OTHER = make_result(b"picture", b"second"), make_result(b"other")
NAME = "safelight:v1:key"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server more time: a busy machine may exceed the service's own limit."""
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 60)


class Clock:
    """Clock that stands still until a test advances it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def open_tier(
    url: str, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[RedisTier]:
    tier = RedisTier(url, 60, clock)
    try:
        yield tier
    finally:
        await tier.close()


def connect(server: RedisServer) -> redis.Redis:
    return redis.Redis.from_url(server.url)


async def test_replicas_share_results_until_they_expire(redis_server: RedisServer) -> None:
    redis_server.start()
    async with open_tier(redis_server.url) as first, open_tier(redis_server.url) as second:
        assert await second.get("key") is None
        await first.put("key", RESULT)
        assert await second.get("key") == RESULT
    with connect(redis_server) as client:
        assert 0 < client.ttl(NAME) <= 60


async def test_a_result_above_the_limit_is_not_sent(redis_server: RedisServer) -> None:
    redis_server.start()
    async with open_tier(redis_server.url) as tier:
        await tier.put("key", make_result(bytes(MAX_VALUE_BYTES)))
    with connect(redis_server) as client:
        assert client.dbsize() == 0


async def test_an_absent_server_is_left_alone_for_a_while_and_then_found(
    redis_server: RedisServer,
) -> None:
    """Fault 25: stopped."""
    clock = Clock()
    async with open_tier(redis_server.url, clock) as tier:
        cache = ResultCache([tier])
        with capture_logs() as logs:
            assert await cache.get("key") is None
            redis_server.start()
            await cache.put("key", RESULT)  # comes too early
            clock.now += RETRY_S
            assert await cache.get("key") is None
            await cache.put("key", RESULT)
            assert await cache.get("key") == RESULT
            redis_server.stop()
            assert await cache.get("key") is None
            assert await cache.get("key") is None
    warnings = [log["operation"] for log in logs if log["event"] == "cache_tier_failing"]
    assert warnings == ["get", "get"]
    stats = cache.stats["redis"]
    assert (stats.hits, stats.misses, stats.errors) == (1, 4, 4)


async def test_a_paused_server_delays_one_call_and_its_late_answer_is_dropped(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 25: SIGSTOP."""
    redis_server.start()
    clock = Clock()
    async with open_tier(redis_server.url, clock) as tier:
        await tier.put("key", RESULT)
        await tier.put("other", OTHER)
        redis_server.pause()
        with monkeypatch.context() as impatience:
            impatience.setattr(redis_link, "TIMEOUT_S", 0.1)
            with pytest.raises(TimeoutError):
                await tier.get("key")
        with pytest.raises(ConnectionError, match="paused after a failure"):
            await tier.get("key")
        redis_server.resume()
        clock.now += RETRY_S
        assert await tier.get("other") == OTHER


@pytest.mark.parametrize(
    "value",
    [b"", b"garbage", pack("key", RESULT)[:-1], pack("other", OTHER)],
    ids=["empty", "garbage", "cut off", "of another key"],
)
async def test_a_garbage_value_is_a_miss_until_it_is_replaced(
    value: bytes, redis_server: RedisServer
) -> None:
    """Fault 25: garbage value."""
    redis_server.start()
    async with open_tier(redis_server.url) as tier:
        cache = ResultCache([tier])
        with connect(redis_server) as client:
            client.set(NAME, value)
        with pytest.raises(MalformedResultError):
            await tier.get("key")
        assert await cache.get("key") is None
        await cache.put("key", RESULT)
        assert await cache.get("key") == RESULT
    stats = cache.stats["redis"]
    assert (stats.hits, stats.misses, stats.errors) == (1, 1, 1)


async def test_a_value_of_another_type_is_a_miss_that_stops_nothing_else(
    redis_server: RedisServer,
) -> None:
    """Fault 25: garbage value."""
    redis_server.start()
    async with open_tier(redis_server.url) as tier:
        cache = ResultCache([tier])
        with connect(redis_server) as client:
            client.lpush(NAME, "x")
        assert await cache.get("key") is None
        await cache.put("other", OTHER)
        assert await cache.get("other") == OTHER


async def test_one_call_at_a_time_finds_out_whether_a_server_is_back(tmp_path: Path) -> None:
    """Fault 25: a server that talks garbage."""
    connections = 0

    async def talk_garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b"garbage\r\n" * 10)
        await writer.drain()
        writer.close()

    socket = str(tmp_path / "s")
    clock = Clock()
    async with (
        await asyncio.start_unix_server(talk_garbage, socket),
        open_tier(f"unix://{socket}", clock) as tier,
    ):
        cache = ResultCache([tier])
        assert await cache.get("key") is None
        assert connections == 1
        clock.now += RETRY_S
        assert await asyncio.gather(*(cache.get("key") for _ in range(5))) == [None] * 5
        assert connections == 2
