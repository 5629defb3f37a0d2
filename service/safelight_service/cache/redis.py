"""Redis: results that replicas on several hosts share."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from safelight_service.cache.results import Result, pack, unpack

TIMEOUT_S = 0.1
"""Most that one call may take, connecting included; one that takes longer is worth less."""

RETRY_S = 5.0
"""How long a server that did not answer is left alone."""

MAX_VALUE_BYTES = 16 << 20

_PREFIX = "safelight:v1:"
_T = TypeVar("_T")


class RedisTier:
    """Results on a Redis server, each for `ttl_s` seconds; how many it keeps is its own affair."""

    name = "redis"
    size_bytes = 0

    def __init__(self, url: str, ttl_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        self._ttl_s = ttl_s
        self._clock = clock
        self._retry_at = 0.0
        """When to call again after a failure; 0: there was none."""

    async def get(self, key: str) -> Result | None:
        """Return what was put under that key.

        Raises:
            MalformedResultError: the server holds something else.
            Exception: whatever the connection comes to.
        """
        value = await self._call(lambda: self._client.get(_PREFIX + key))
        assert not isinstance(value, str)  # those are for clients that decode
        return None if value is None else await asyncio.to_thread(unpack, key, value)

    async def put(self, key: str, result: Result) -> None:
        """Send a result, unless it is above MAX_VALUE_BYTES.

        Raises:
            Exception: whatever the connection comes to.
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
            raise ConnectionError("left alone since it failed")
        if self._retry_at:
            self._retry_at = now + RETRY_S  # others wait for what this call finds
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await command()
        except ResponseError:
            self._retry_at = 0.0  # it refuses, but it answers
            raise
        except Exception:
            self._retry_at = now + RETRY_S
            raise
        self._retry_at = 0.0
        return reply
