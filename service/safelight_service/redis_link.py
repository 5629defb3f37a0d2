"""RedisLink: a connection to a Redis server that may be slow, down or gone."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

TIMEOUT_S = 0.1
"""Longest command, including the connection; a slower answer is not worth the wait."""

RETRY_S = 5.0
"""Pause after a server has failed to answer."""

_T = TypeVar("_T")

_log = structlog.get_logger()


class RedisLink:
    """Sends commands with a time limit, and none for a while after one has failed."""

    def __init__(
        self,
        url: str,
        clock: Callable[[], float] = time.monotonic,
        retry_s: float = RETRY_S,
        name: str = "redis",
    ) -> None:
        """`name` says in log lines what the server is used for."""
        self.client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
        self._clock = clock
        self._retry_s = retry_s
        self._name = name
        self._is_reachable = True
        self._retry_at = 0.0
        """Next attempt after a failure, by `clock`; 0 without one."""

    async def call(self, command: Callable[[], Awaitable[_T]]) -> _T:
        """Return the reply to a command.

        Raises:
            Exception: any failure of the connection or the server, or a pause after one.
        """
        now = self._clock()
        if now < self._retry_at:
            raise ConnectionError("paused after a failure")
        if self._retry_at:
            self._retry_at = now + self._retry_s  # one attempt at a time
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reply = await command()
        except ResponseError:
            self._retry_at = 0.0  # an answer, if a refusal
            raise
        except Exception:
            self._retry_at = now + self._retry_s
            raise
        self._retry_at = 0.0
        return reply

    async def try_call(self, command: Callable[[], Awaitable[_T]]) -> _T | None:
        """Return the reply to a command; None if there is none, which is logged once."""
        try:
            reply = await self.call(command)
        except Exception as error:
            if self._is_reachable:
                _log.warning(f"{self._name}_unreachable", error_type=type(error).__name__)
            self._is_reachable = False
            return None
        if not self._is_reachable:
            _log.info(f"{self._name}_reachable")
        self._is_reachable = True
        return reply

    async def close(self) -> None:
        """Close the connections."""
        async with asyncio.timeout(TIMEOUT_S):
            await self.client.aclose()
