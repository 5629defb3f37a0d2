"""Redis tier: results that replicas on several hosts share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from safelight_service.cache.results import Result, pack, unpack
from safelight_service.core.tenant import NO_TENANT, Tenant

TIMEOUT_S = 0.1
"""Longest command, including the connection; a slower answer is not worth the wait."""

RETRY_S = 5.0
"""Pause after a server has failed to answer."""

MAX_VALUE_BYTES = 16 << 20

_PREFIX = "safelight:v1:"
_T = TypeVar("_T")


class RedisTier:
    """Keeps each result for `ttl_s` seconds; the server's own policy bounds their number.

    The server knows no owners, so it has no shares for them.
    """

    name = "redis"
    size_bytes = 0

    def __init__(self, url: str, ttl_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        self._ttl_s = ttl_s
        self._clock = clock
        self._retry_at = 0.0
        """Next attempt after a failure, by `clock`; 0 without one."""

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: the server's value differs from the one put.
            Exception: any failure of the connection or the server.
        """
        value = await self._call(lambda: self._client.get(_PREFIX + key))
        assert not isinstance(value, str)  # only clients with decode_responses get those
        return None if value is None else await asyncio.to_thread(unpack, key, value)

    async def put(self, key: str, result: Result, owner: Tenant = NO_TENANT) -> None:
        """Send a result, unless it is larger than MAX_VALUE_BYTES.

        Raises:
            Exception: any failure of the connection or the server.
        """
        value = pack(key, result)
        if len(value) <= MAX_VALUE_BYTES:
            await self._call(lambda: self._client.set(_PREFIX + key, value, ex=self._ttl_s))

    async def close(self) -> None:
        """Close the connections."""
        async with asyncio.timeout(TIMEOUT_S):
            await self._client.aclose()

    async def _call(self, command: Callable[[], Awaitable[_T]]) -> _T:
        now = self._clock()
        if now < self._retry_at:
            raise ConnectionError("paused after a failure")
        if self._retry_at:
            self._retry_at = now + RETRY_S  # one attempt at a time
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await command()
        except ResponseError:
            self._retry_at = 0.0  # an answer, if a refusal
            raise
        except Exception:
            self._retry_at = now + RETRY_S
            raise
        self._retry_at = 0.0
        return reply
