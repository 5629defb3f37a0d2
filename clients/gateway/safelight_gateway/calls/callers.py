"""Callers: the tokens that the service accepts, and the addresses of everybody else."""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
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

_GUESSES_PER_ADDRESS = 50
"""Refused tokens of one address within `_KEEP_S`; further new ones are not asked for."""
_KNOWN_S = 3600.0

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


_TOO_MANY_GUESSES = _Refusal(
    HTTPStatus.TOO_MANY_REQUESTS,
    "your address has sent too many unknown tokens; try again later",
    "RATE_LIMITED",
    _KEEP_S,
)


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
        self._guesses: TTLCache[str, int] = TTLCache(_MAX_ANSWERS, _KEEP_S, clock)
        """Refused tokens by address."""
        self._known: TTLCache[str, None] = TTLCache(_MAX_ANSWERS, _KNOWN_S, clock)
        """Tokens that were accepted lately, which are no guesses, by digest."""
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
        """Return the holder of a request that calls the service anyway, or has done so.

        While the service cannot be asked, that is the address. A call reports the failure, and a
        result of an earlier call is not lost.

        Raises:
            GatewayError: the service refuses the token, or the address sends too many such ones.
        """
        try:
            return await self.identify(context)
        except GatewayError as error:
            if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS):
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
        for answers in self._answers, self._refused:
            with suppress(KeyError):  # an answer may expire between two looks
                return answers[key]
        # All requests that wait for the same answer share one question.
        asking = self._asking.get(key)
        if asking is None:
            if key not in self._known and self._guesses.get(holder, 0) >= _GUESSES_PER_ADDRESS:
                return _TOO_MANY_GUESSES
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
            self._answers[key] = self._known[key] = None
            return None
        refusal = _Refusal(refused.status, refused.message, refused.reason, refused.retry_after_s)
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            (self._answers if key == _ANYONE else self._refused)[key] = refusal
            self._guesses[holder] = self._guesses.get(holder, 0) + 1
        return refusal
