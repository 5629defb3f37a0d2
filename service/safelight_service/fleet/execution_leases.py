"""Execution leases: which service makes the images of equal requests, kept in Redis.

The holder shows the progress of its execution there, for the services that wait for its images. Its
lease runs out when it dies, and one of those takes it. A service that cannot reach Redis makes the
images itself, so losing Redis fails no generation.
"""

import asyncio
import hashlib
import json
import time
import uuid
from base64 import b64decode, b64encode
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from safelight_service.core.events import Event, ModelLoading, Preview, Progress, Queued
from safelight_service.redis_link import RedisLink

_PREFIX = "safelight:v1:execution:"

_SHOW_S = 0.25
"""Seconds between two looks at an execution, by its holder and by others."""
_REPEAT_S = 4.0
"""Seconds after which an unchanged `Queued` is repeated, so that no stream is silent for long."""

_CLAIM = """
if redis.call('exists', KEYS[1]) == 1 then return 0 end
redis.call('hset', KEYS[1], 'holder', ARGV[1], 'present', '[]')
redis.call('pexpire', KEYS[1], ARGV[2])
return 1
"""

_SHOW = """
if redis.call('hget', KEYS[1], 'holder') ~= ARGV[1] then return end
redis.call('hset', KEYS[1], 'present', ARGV[3])
redis.call('pexpire', KEYS[1], ARGV[2])
"""

_RELEASE = """
if redis.call('hget', KEYS[1], 'holder') == ARGV[1] then redis.call('del', KEYS[1]) end
"""

_SHOWN: dict[str, TypeAdapter[Any]] = {
    kind.__name__: TypeAdapter(kind) for kind in (ModelLoading, Queued, Progress, Preview)
}
"""Events that the holder shows; the images come from the cache."""


class ExecutionLeases:
    """Leases of executions in the whole fleet. Use it on one event loop."""

    def __init__(self, link: RedisLink, lease_s: float = 5.0) -> None:
        self._link = link
        self._lease_ms = round(lease_s * 1000)
        self._held: dict[str, tuple[str, asyncio.Task[None]]] = {}
        """Name of each lease that this service holds, and the task that renews it, by holder."""
        self._releasing: set[asyncio.Task[Any]] = set()

    async def claim(
        self, key: str, present: Callable[[], Iterable[Event]]
    ) -> Callable[[], None] | None:
        """Take the lease of a key, and return its release; None if another service holds it.

        Without Redis, each service holds it. `present` returns the events to show to the services
        that follow.
        """
        name, holder = _name(key), uuid.uuid4().hex
        if await self._run(_CLAIM, name, holder, self._lease_ms) == 0:
            return None
        showing = asyncio.create_task(self._keep_showing(name, holder, present))
        self._held[holder] = name, showing
        return lambda: self._release(holder)

    async def follow(self, key: str) -> AsyncGenerator[Event, None]:
        """Yield the events that the holder of a key shows, until it holds the lease no more."""
        last: list[Event] = []
        repeated_at = time.monotonic()
        while (text := await self._read(_name(key))) is not None:
            events = _parse(text)
            is_silent = time.monotonic() > repeated_at + _REPEAT_S
            for event in events:
                if event not in last or (is_silent and isinstance(event, Queued)):
                    repeated_at = time.monotonic()
                    yield event
            last = events
            await asyncio.sleep(_SHOW_S)

    async def close(self) -> None:
        """Release all leases, and disconnect."""
        for holder in tuple(self._held):
            self._release(holder)
        await asyncio.gather(*self._releasing)
        with suppress(Exception):
            await self._link.close()

    async def _keep_showing(
        self, name: str, holder: str, present: Callable[[], Iterable[Event]]
    ) -> None:
        """Renew a lease and show its events, for ever."""
        while True:
            await self._run(_SHOW, name, holder, self._lease_ms, _pack(present()))
            await asyncio.sleep(_SHOW_S)

    def _release(self, holder: str) -> None:
        if holder not in self._held:
            return
        name, showing = self._held.pop(holder)
        showing.cancel()
        releasing = asyncio.create_task(self._run(_RELEASE, name, holder))
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)

    async def _read(self, name: str) -> bytes | str | None:
        client: Any = self._link.client
        reply: bytes | str | None = await self._link.try_call(lambda: client.hget(name, "present"))
        return reply

    async def _run(self, script: str, name: str, *arguments: Any) -> Any:
        """Return the reply to a script about one key; None if the server gives none."""
        client = self._link.client
        return await self._link.try_call(lambda: client.eval(script, 1, name, *arguments))


def _name(key: str) -> str:
    return _PREFIX + hashlib.sha256(key.encode()).hexdigest()


def _pack(events: Iterable[Event]) -> str:
    """Serialize the events that are shown."""
    shown = [event for event in events if type(event).__name__ in _SHOWN]
    return json.dumps(
        [[type(event).__name__, asdict(event)] for event in shown],
        default=lambda data: b64encode(data).decode(),
    )


def _parse(text: bytes | str) -> list[Event]:
    """Parse events; none if the text is not what a service of this version writes."""
    with suppress(ValidationError, ValueError, TypeError, KeyError):
        return [_restore(_SHOWN[kind].validate_python(fields)) for kind, fields in json.loads(text)]
    return []


def _restore(event: Event) -> Event:
    return replace(event, data=b64decode(event.data)) if isinstance(event, Preview) else event
