"""Quotas: limits of a caller that hold across the services of a fleet, kept in Redis.

Each service applies the limits to its own generations, too. So without Redis a caller may run at
each service as much as it may in the whole fleet, and no more.
"""

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from safelight_service.auth.tokens import Caller
from safelight_service.core.errors import RateLimitedError, TooManyGenerationsError
from safelight_service.redis_link import RedisLink

_PREFIX = "safelight:v1:quota:"
_WINDOW_MS = 60_000

_TAKE = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local concurrent, per_minute = tonumber(ARGV[2]), tonumber(ARGV[3])
local lease, window = tonumber(ARGV[4]), tonumber(ARGV[5])
redis.call('zremrangebyscore', KEYS[1], '-inf', now)
redis.call('zremrangebyscore', KEYS[2], '-inf', now - window)
if concurrent > 0 and redis.call('zcard', KEYS[1]) >= concurrent then return {1, 0} end
if per_minute > 0 and redis.call('zcard', KEYS[2]) >= per_minute then
    local first = redis.call('zrange', KEYS[2], -per_minute, -per_minute, 'withscores')
    return {2, first[2] + window - now}
end
if concurrent > 0 then
    redis.call('zadd', KEYS[1], now + lease, ARGV[1])
    redis.call('pexpire', KEYS[1], lease)
end
if per_minute > 0 then
    redis.call('zadd', KEYS[2], now, ARGV[1])
    redis.call('pexpire', KEYS[2], window)
end
return {0, 0}
"""
"""Count a generation as running and as started, unless a limit is met: 1 or 2, and a delay in ms.

The keys hold the running generations by the ends of their leases, and those started in the last
minute by their starts; all times are the server's.
"""

_RENEW = """
local time = redis.call('time')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('zadd', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
redis.call('pexpire', KEYS[1], ARGV[2])
"""
"""Prolong the lease of a generation, unless its end has been counted already."""


class Quotas:
    """Counts the generations of callers in the whole fleet. Use it on one event loop."""

    def __init__(self, link: RedisLink, lease_s: float = 15.0) -> None:
        self._link = link
        self._lease_ms = round(lease_s * 1000)
        self._held: dict[str, Caller] = {}
        """Callers of the running generations of this service, by the ids of their slots."""
        self._renewing: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Renew the leases of running generations from now on."""
        self._renewing = asyncio.create_task(self._keep_renewing())

    async def take(self, caller: Caller) -> Callable[[], None]:
        """Count a generation; return a function that counts its end.

        Raises:
            TooManyGenerationsError: the fleet runs as many generations of the caller as it may.
            RateLimitedError: the caller has started as many within a minute as it may.
        """
        slot = uuid.uuid4().hex
        reply = await self._call(
            _TAKE,
            (_running(caller), _started(caller)),
            slot,
            caller.concurrent or 0,
            caller.requests_per_minute or 0,
            self._lease_ms,
            _WINDOW_MS,
        )
        met, delay_ms = (0, 0) if reply is None else map(int, reply)
        if met == 1 and caller.concurrent is not None:
            raise TooManyGenerationsError(caller.name, caller.concurrent)
        if met == 2 and caller.requests_per_minute is not None:
            raise RateLimitedError(caller.name, caller.requests_per_minute, delay_ms / 1000)
        if caller.concurrent is None:
            return lambda: None
        self._held[slot] = caller
        return lambda: self._release(slot)

    async def close(self) -> None:
        """End all generations of this service, and disconnect."""
        if self._renewing is not None:
            self._renewing.cancel()
        for slot in tuple(self._held):
            self._release(slot)
        await asyncio.gather(*self._releasing)
        with suppress(Exception):
            await self._link.close()

    def _release(self, slot: str) -> None:
        caller = self._held.pop(slot, None)
        if caller is None:
            return
        command = "return redis.call('zrem', KEYS[1], ARGV[1])"
        task = asyncio.ensure_future(self._call(command, (_running(caller),), slot))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _keep_renewing(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            for slot, caller in tuple(self._held.items()):
                if slot in self._held:
                    await self._call(_RENEW, (_running(caller),), slot, self._lease_ms)

    async def _call(self, script: str, keys: tuple[str, ...], *arguments: Any) -> Any:
        """Return the reply to a script; None if the server gives none."""
        client = self._link.client
        return await self._link.try_call(lambda: client.eval(script, len(keys), *keys, *arguments))


def _running(caller: Caller) -> str:
    return f"{_PREFIX}{{{caller.name}}}:running"  # the braces keep both keys on one server


def _started(caller: Caller) -> str:
    return f"{_PREFIX}{{{caller.name}}}:started"
