"""Limits of tokens that hold across services."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from safelight_service import redis_link
from safelight_service.auth.tokens import Caller, digest_token
from safelight_service.core.errors import RateLimitedError, TooManyGenerationsError
from safelight_service.fleet.quotas import Quotas
from safelight_service.redis_link import RedisLink
from support.redis_server import RedisServer

ALICE = Caller(name="alice", sha256=digest_token("a"), concurrent=2)
BOB = Caller(name="bob", sha256=digest_token("b"), requests_per_minute=3)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the server more time: a busy machine may exceed the service's own limit."""
    monkeypatch.setattr(redis_link, "TIMEOUT_S", 60)


def with_quotas(
    server: RedisServer, act: Callable[[Quotas, Quotas], Awaitable[None]], lease_s: float = 15.0
) -> None:
    async def main() -> None:
        first, second = (Quotas(RedisLink(server.url, name="quotas"), lease_s) for _ in range(2))
        async with asyncio.timeout(60):
            await act(first, second)
        await first.close()
        await second.close()

    server.start()
    asyncio.run(main())


def test_services_share_the_generations_that_a_caller_may_run(redis_server: RedisServer) -> None:
    async def act(first: Quotas, second: Quotas) -> None:
        await first.take(ALICE)
        end = await second.take(ALICE)
        for quotas in (first, second):
            with pytest.raises(TooManyGenerationsError):
                await quotas.take(ALICE)
        end()
        await second.close()
        await first.take(ALICE)

    with_quotas(redis_server, act)


def test_services_share_the_starts_of_a_minute(redis_server: RedisServer) -> None:
    async def act(first: Quotas, second: Quotas) -> None:
        for quotas in (first, second, first):
            (await quotas.take(BOB))()
        with pytest.raises(RateLimitedError) as refused:
            await second.take(BOB)
        assert 50 < refused.value.retry_after_s <= 60

    with_quotas(redis_server, act)


def test_a_dead_service_gives_back_its_generations(redis_server: RedisServer) -> None:
    async def act(first: Quotas, second: Quotas) -> None:
        for _ in range(2):
            await first.take(ALICE)
        with pytest.raises(TooManyGenerationsError):
            await second.take(ALICE)
        await asyncio.sleep(0.3)
        await second.take(ALICE)

    with_quotas(redis_server, act, lease_s=0.2)


def test_a_living_service_keeps_its_generations(redis_server: RedisServer) -> None:
    async def act(first: Quotas, second: Quotas) -> None:
        first.start()
        for _ in range(2):
            await first.take(ALICE)
        await asyncio.sleep(1.2)
        with pytest.raises(TooManyGenerationsError):
            await second.take(ALICE)

    with_quotas(redis_server, act, lease_s=1.0)


def test_without_redis_nothing_is_refused_and_one_line_says_so(redis_server: RedisServer) -> None:
    async def act(first: Quotas, second: Quotas) -> None:
        redis_server.stop()
        with capture_logs() as logs:
            for _ in range(4):
                (await first.take(ALICE))()
        assert [line["event"] for line in logs] == ["quotas_unreachable"]

    with_quotas(redis_server, act)
