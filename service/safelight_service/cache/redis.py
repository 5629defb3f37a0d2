"""Redis tier: results that replicas on several hosts share."""

import asyncio
import time
from collections.abc import Callable

from safelight_service.cache.results import Result, pack, unpack
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.redis_link import RedisLink

MAX_VALUE_BYTES = 16 << 20

_PREFIX = "safelight:v1:"


class RedisTier:
    """Keeps each result for `ttl_s` seconds; the server's own policy bounds their number.

    The server knows no owners, so it has no shares for them.
    """

    name = "redis"
    size_bytes = 0

    def __init__(self, url: str, ttl_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = RedisLink(url, clock)
        self._ttl_s = ttl_s

    async def get(self, key: str) -> Result | None:
        """Return the result of a key, or None.

        Raises:
            MalformedResultError: the server's value differs from the one put.
            Exception: any failure of the connection or the server.
        """
        value = await self._link.call(lambda: self._link.client.get(_PREFIX + key))
        assert not isinstance(value, str)  # only clients with decode_responses get those
        return None if value is None else await asyncio.to_thread(unpack, key, value)

    async def put(self, key: str, result: Result, owner: Tenant = NO_TENANT) -> None:
        """Send a result, unless it is larger than MAX_VALUE_BYTES.

        Raises:
            Exception: any failure of the connection or the server.
        """
        value = pack(key, result)
        if len(value) <= MAX_VALUE_BYTES:
            client = self._link.client
            await self._link.call(lambda: client.set(_PREFIX + key, value, ex=self._ttl_s))

    async def close(self) -> None:
        """Close the connections."""
        await self._link.close()
