"""Callers: only tokens that the service accepts own anything."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from safelight_gateway.calls.callers import Callers
from safelight_gateway.calls.channel_pool import ChannelPool
from safelight_gateway.errors import GatewayError
from safelight_gateway.generation.request import CallContext
from safelight_gateway.settings import Settings
from support.running_gateway import RunningGateway
from tests.gateway.dialects.requests import PROMPT
from tests.gateway.failing_service import READY, FailingService
from tests.gateway.http_call import get, post


@pytest.fixture
def guarded_service(failing_service: FailingService) -> Iterator[FailingService]:
    """The service, which knows two tokens."""
    failing_service.tokens = {"a", "b"}
    yield failing_service
    failing_service.tokens = None


OpenCallers = Callable[..., Callers]


@pytest.fixture
async def open_callers() -> AsyncIterator[OpenCallers]:
    """Return the callers of a service; close their connections at the end."""
    async with AsyncExitStack() as stack:

        def open_(target: str, **options: Any) -> Callers:
            pool = ChannelPool(Settings(target=target))
            stack.push_async_callback(pool.close)
            return Callers(pool, **options)

        yield open_


def context(credential: str | None, address: str = "192.0.2.1") -> CallContext:
    return CallContext(credential=credential, address=address)


@pytest.mark.anyio
async def test_made_up_tokens_are_one_address_where_anyone_may_call(
    failing_service: FailingService, open_callers: OpenCallers
) -> None:
    callers = open_callers(failing_service.target)
    holders = {await callers.identify(context(f"made-up-{number}")) for number in range(9)}
    assert holders == {await callers.identify(context(None))}
    assert holders != {await callers.identify(context(None, "192.0.2.2"))}


@pytest.mark.anyio
async def test_a_token_is_asked_for_once_and_again_after_five_seconds(
    guarded_service: FailingService, open_callers: OpenCallers
) -> None:
    now_s = 0.0
    callers = open_callers(guarded_service.target, clock=lambda: now_s)
    first = await callers.identify(context("a"))
    assert first == await callers.identify(context("a", "192.0.2.2"))
    assert first != await callers.identify(context("b"))
    assert guarded_service.tokens is not None
    guarded_service.tokens.remove("a")
    assert await callers.identify(context("a")) == first
    now_s = 5.0
    for credential in ("a", "unknown", None):
        with pytest.raises(GatewayError) as raised:
            await callers.identify(context(credential))
        assert raised.value.status == 401


@pytest.mark.anyio
async def test_an_address_that_guesses_tokens_is_not_asked_for_more(
    guarded_service: FailingService, open_callers: OpenCallers
) -> None:
    """Tokens that were accepted lately pass, from the same address, too."""
    now_s = 0.0
    callers = open_callers(guarded_service.target, clock=lambda: now_s)
    known = await callers.identify(context("a"))
    statuses = []
    for number in range(60):
        with pytest.raises(GatewayError) as raised:
            await callers.attribute(context(f"guess-{number}"))
        statuses.append(raised.value.status)
    assert statuses == [401] * 50 + [429] * 10
    now_s = 4.9
    assert await callers.identify(context("a")) == known
    assert await callers.identify(context("b", "192.0.2.2"))
    now_s = 10.0
    assert await callers.identify(context("b"))


@pytest.mark.anyio
async def test_an_answer_may_expire_while_it_is_looked_up(
    failing_service: FailingService, open_callers: OpenCallers
) -> None:
    looks = itertools.count()
    callers = open_callers(failing_service.target, clock=lambda: 1.5 * next(looks))
    holders = {await callers.identify(context(None)) for _ in range(9)}
    assert len(holders) == 1


@pytest.mark.anyio
async def test_requests_that_wait_for_the_same_answer_fail_together(
    open_callers: OpenCallers,
) -> None:
    callers = open_callers("127.0.0.1:1")
    asked = [callers.identify(context("a")) for _ in range(50)]
    ends = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    assert all(isinstance(end, GatewayError) and end.status == 503 for end in ends)


def test_unknown_tokens_neither_push_out_results_nor_read_them(
    guarded_service: FailingService, guarded_gateway: RunningGateway
) -> None:
    """The gateway keeps three jobs."""
    url = f"{guarded_gateway.url}/fal-queue/{READY}"
    job = post(url, PROMPT, Authorization="Key a").json
    for number in range(6):
        assert post(url, PROMPT, Authorization=f"Key unknown-{number}").status == 401
    assert post(url, PROMPT).status == 401
    for _ in range(6):
        assert post(url, PROMPT, Authorization="Key b").status in (200, 429)
    response_url = job["response_url"]
    assert get(response_url, Authorization="Key a").status in (200, 400)
    assert get(response_url, Authorization="Key b").status == 404
    assert get(response_url, Authorization="Key unknown").status == 401
    assert get(response_url).status == 401


def test_images_are_verified_for_known_tokens_only(
    guarded_service: FailingService, guarded_gateway: RunningGateway
) -> None:
    url = f"{guarded_gateway.url}/v1/verify"
    assert post(url, b"no image").status == 401
    assert post(url, b"no image", Authorization="Key unknown").status == 401
    assert post(url, b"no image", Authorization="Key a").status == 422
