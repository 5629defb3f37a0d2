"""Directory: which front of a fleet holds a generation, kept in Redis.

A front claims an id before it starts a generation under it. Its lease runs out when it dies; then
another front may claim the id. A front that cannot reach Redis serves the ids itself, so losing
Redis fails no generation; until Redis is back, other fronts do not find it.
"""

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from safelight_service.redis_link import RedisLink

_PREFIX = "safelight:v1:generation:"

_CLAIM = """
local holder = redis.call('get', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then return holder end
redis.call('set', KEYS[1], ARGV[1], 'EX', ARGV[2])
return ARGV[1]
"""
"""Return the holder, after taking the key if it is free, or held by the front ARGV[3]."""

_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) end"

Owned = tuple[str, str]
"""Owner and id of a generation."""


class Directory:
    """Finds the front that holds a generation. Use it on one event loop."""

    def __init__(self, link: RedisLink, address: str, lease_s: float = 15.0) -> None:
        """`address` is where the other fronts reach this one."""
        self.address = address
        self._link = link
        self._lease_s = lease_s
        self._held: set[Owned] = set()
        self._renewing: asyncio.Task[None] | None = None

    def start(self, is_known: Callable[[str, str], bool]) -> None:
        """Renew the leases of generations for as long as `is_known` returns true."""
        self._renewing = asyncio.create_task(self._keep_renewing(is_known))

    async def claim(self, owner: str, generation_id: str, *, gone: str = "") -> str:
        """Return the address of the front that holds a generation; this one if no other does.

        `gone` is the address of a front that does not answer: this one takes its place.
        """
        owned = owner, generation_id
        holder = await self._claim(owned, gone)
        if holder == self.address:
            self._held.add(owned)
        return holder

    async def find(self, owner: str, generation_id: str) -> str:
        """Return the address of the front that holds a generation; this one if unknown."""
        if (owner, generation_id) in self._held:
            return self.address
        key = _key_of((owner, generation_id))
        holder = await self._link.try_call(lambda: self._link.client.get(key))
        return self.address if holder is None else _text(holder)

    async def close(self) -> None:
        """Release all generations, and disconnect."""
        if self._renewing is not None:
            self._renewing.cancel()
        await asyncio.gather(*(self._release(owned) for owned in tuple(self._held)))
        with suppress(Exception):
            await self._link.close()

    async def _keep_renewing(self, is_known: Callable[[str, str], bool]) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            for owned in tuple(self._held):
                if not is_known(*owned):
                    await self._release(owned)
                elif await self._claim(owned, "") != self.address:
                    self._held.discard(owned)  # another front has started it meanwhile

    async def _claim(self, owned: Owned, gone: str) -> str:
        lease_s = max(1, round(self._lease_s))
        arguments: list[Any] = [_key_of(owned), self.address, lease_s, gone or self.address]
        holder = await self._link.try_call(lambda: self._link.client.eval(_CLAIM, 1, *arguments))
        return self.address if holder is None else _text(holder)

    async def _release(self, owned: Owned) -> None:
        self._held.discard(owned)
        key = _key_of(owned)
        await self._link.try_call(lambda: self._link.client.eval(_RELEASE, 1, key, self.address))


def _key_of(owned: Owned) -> str:
    """Return the key of a generation; it reveals neither the owner nor the id."""
    return _PREFIX + hashlib.sha256("\0".join(owned).encode()).hexdigest()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
