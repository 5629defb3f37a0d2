"""Retries: whether and when to make a failed call again."""

import math
import random
import time
from contextlib import suppress
from typing import TypedDict, cast

import grpc

from safelight.errors import ServiceError

_ATTEMPT_COUNT = 4
_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.1, 1.0
_FIRST_RESUME_DELAY_S = 0.05
_FRUITLESS_STREAM_COUNT = 10
_PUSHBACK = "grpc-retry-pushback-ms"
_LONGEST_PUSHBACK_MS = 10**12  # longer waits overflow

_BREAK_CODES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,  # no proxy, or none that had sent anything yet
        grpc.StatusCode.INTERNAL,  # Envoy and others, by RST_STREAM
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,  # a time limit of a proxy
    }
)
"""Codes of a broken connection. With others, a proxy refuses the call."""


class CallArguments(TypedDict):
    """Arguments of a stub's method besides the request.

    Attributes:
        timeout: Seconds; None for no limit.
        metadata: Keys and values.
    """

    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]


class Retries:
    """The attempts of one call: their arguments, and the wait before another.

    All attempts share the call's time-out; none begins after it. Before the first message, four
    attempts are made while the service is UNAVAILABLE or the connection breaks. They wait as long
    as the service asks (`grpc-retry-pushback-ms`), or else 0.1 s, doubling. A stream that breaks
    later is resumed for `linger_s` seconds, as long as resuming brings new events.
    """

    def __init__(self, arguments: CallArguments, linger_s: float = 0.0) -> None:
        """Plan a call.

        Args:
            arguments: Arguments of the call; the time-out begins with the first attempt.
            linger_s: Seconds to try to resume a broken stream; 0: not at all.
        """
        self._arguments = arguments
        self._linger_s = linger_s
        self._ends_at: float | None = None
        self._attempt_count = 0
        self._has_begun = False
        self._is_streaming = False
        self._gives_up_at: float | None = None
        self._fruitless_count = 0

    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        """Metadata of every attempt."""
        return self._arguments["metadata"]

    @property
    def left_s(self) -> float | None:
        """Seconds until the time-out passes; None for no limit."""
        timeout_s = self._arguments["timeout"]
        if timeout_s is None:
            return None
        if self._ends_at is None:
            self._ends_at = time.monotonic() + timeout_s
        return max(0.0, self._ends_at - time.monotonic())

    def begin_attempt(self) -> CallArguments:
        """Return the arguments of the next attempt."""
        self._attempt_count += 1
        self._is_streaming = False
        return CallArguments(timeout=self.left_s, metadata=self.metadata)

    def note_message(self, *, is_new: bool) -> None:
        """Note a message of the stream, and whether the caller has not seen it before."""
        self._has_begun = self._is_streaming = True
        self._attempt_count = 0
        self._gives_up_at = None
        if is_new:
            self._fruitless_count = 0

    def delay_after(self, error: ServiceError) -> float:
        """Return the seconds to wait before the next attempt.

        Raises:
            ServiceError: the given error, since another attempt would not help.
        """
        delay_s = self._delay_after(error)
        left_s = self.left_s
        if delay_s is None or (left_s is not None and delay_s >= left_s):
            raise error
        return delay_s

    def _delay_after(self, error: ServiceError) -> float | None:
        is_broken = error.reason is None and error.code in _BREAK_CODES
        pushback_s = _pushback_of(error)
        if pushback_s is not None and pushback_s < 0:
            return None
        if is_broken and self._has_begun:
            return self._resume_delay()
        if self._is_streaming or self._attempt_count >= _ATTEMPT_COUNT:
            return None
        if not is_broken and error.code is not grpc.StatusCode.UNAVAILABLE:
            return None
        if pushback_s is not None:
            return pushback_s
        return _backoff_s(_FIRST_DELAY_S, self._attempt_count - 1) * random.uniform(0.8, 1.2)

    def _resume_delay(self) -> float | None:
        if self._linger_s <= 0:
            return None
        now = time.monotonic()
        if self._gives_up_at is None:
            self._gives_up_at = now + self._linger_s
        if self._is_streaming:
            self._fruitless_count += 1
        failure_count = max(self._attempt_count, self._fruitless_count - 1)
        delay_s = _backoff_s(_FIRST_RESUME_DELAY_S, failure_count)
        if self._fruitless_count > _FRUITLESS_STREAM_COUNT or now + delay_s >= self._gives_up_at:
            return None
        return delay_s


def _backoff_s(first_s: float, failure_count: int) -> float:
    return min(math.ldexp(first_s, min(failure_count, 10)), _LONGEST_DELAY_S)


def _pushback_of(error: ServiceError) -> float | None:
    """Return the seconds that the service asks to wait, below 0 for no retry; None if unset."""
    cause = error.__cause__
    if not isinstance(cause, grpc.RpcError):
        return None
    for key, value in cast(grpc.Call, cause).trailing_metadata() or ():
        if key == _PUSHBACK:
            with suppress(ValueError):
                return min(int(value), _LONGEST_PUSHBACK_MS) / 1e3
            return -1.0  # as gRPC reads one that is not a number
    return None
