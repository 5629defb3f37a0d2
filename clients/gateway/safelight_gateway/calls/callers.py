"""Callers: the tokens that the service accepts, and the addresses of everybody else."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from weakref import WeakValueDictionary

from cachetools import TTLCache
from safelight import AsyncClient, SafelightError

from safelight_gateway.calls.channel_pool import ChannelPool
from safelight_gateway.errors import GatewayError, from_service
from safelight_gateway.generation.request import CallContext
from safelight_gateway.shares import holder_of

_KEEP_S, _MAX_ANSWERS = 5.0, 1024
_ASK_S = 10.0
_ASKS_PER_ADDRESS = 8
"""Concurrent questions about tokens from one address; further ones wait."""

_ANYONE, _GATEWAY = "", "the gateway itself"


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why the service refuses a token, or could not be asked."""

    status: int
    message: str
    reason: str
    retry_after_s: float | None

    def as_error(self) -> GatewayError:
        return GatewayError(self.status, self.message, self.reason, (), self.retry_after_s)


class Callers:
    """Finds the holder that a request counts for.

    That is the token if the service accepts it, or the address if the service needs no token. So
    made-up tokens own nothing. The answers of the service are kept for 5 seconds.
    """

    def __init__(self, pool: ChannelPool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool
        self._answers: TTLCache[str, _Refusal | None] = TTLCache(_MAX_ANSWERS, _KEEP_S, clock)
        """None for a token that the service accepts, by digest."""
        self._refused: TTLCache[str, _Refusal] = TTLCache(_MAX_ANSWERS, _KEEP_S, clock)
        """A cache of its own, so that unknown tokens push out no known one."""
        self._asking: dict[str, asyncio.Task[_Refusal | None]] = {}
        self._gates: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def identify(self, context: CallContext) -> str:
        """Return the holder of a request.

        Raises:
            GatewayError: the service refuses the token, or cannot be asked.
        """
        address = holder_of(context.address)
        refusal = await self._ask(_ANYONE, None, _GATEWAY)
        if refusal is None:
            return address  # where anyone may call, tokens mean nothing
        if context.credential is None or refusal.status != HTTPStatus.UNAUTHORIZED:
            raise refusal.as_error()
        digest = hashlib.sha256(context.credential.encode()).hexdigest()
        refusal = await self._ask(digest, context.credential, address)
        if refusal is not None:
            raise refusal.as_error()
        return f"token {digest}"

    async def attribute(self, context: CallContext) -> str:
        """Return the holder of a request that calls the service anyway.

        While the service cannot be asked, that is the address, and the call reports the failure.

        Raises:
            GatewayError: the service refuses the token.
        """
        try:
            return await self.identify(context)
        except GatewayError as error:
            if error.status == HTTPStatus.UNAUTHORIZED:
                raise
            return holder_of(context.address)

    @asynccontextmanager
    async def lease(self, context: CallContext) -> AsyncIterator[AsyncClient]:
        """Yield a client for one call of a request within the block.

        Raises:
            GatewayError: the service refuses the token, or the caller has its share of calls.
        """
        with self._pool.lease(await self.attribute(context)) as client:
            yield client

    async def _ask(self, key: str, credential: str | None, holder: str) -> _Refusal | None:
        """Return why the service refuses a credential; None if it accepts it."""
        if key in self._answers:
            return self._answers[key]
        if key in self._refused:
            return self._refused[key]
        # All requests that wait for the same answer share one question.
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.create_task(self._ask_service(key, credential, holder))
            self._asking[key] = asking
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(asking)

    async def _ask_service(self, key: str, credential: str | None, holder: str) -> _Refusal | None:
        metadata = CallContext(credential=credential).call_metadata
        gate = self._gates.setdefault(holder, asyncio.Semaphore(_ASKS_PER_ADDRESS))
        try:
            async with gate:
                with self._pool.lease(holder) as client:
                    await client.list_models(metadata=metadata, timeout=_ASK_S)
        except SafelightError as error:
            refused = from_service(error)
        except GatewayError as error:
            refused = error
        else:
            self._answers[key] = None
            return None
        refusal = _Refusal(refused.status, refused.message, refused.reason, refused.retry_after_s)
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            (self._answers if key == _ANYONE else self._refused)[key] = refusal
        return refusal
