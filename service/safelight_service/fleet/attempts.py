"""Attempts: calls an engine host, and another one where it is lost."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from safelight_service.core.backend import ModelChangedError
from safelight_service.core.errors import (
    DeadlineError,
    DeviceLostError,
    NoEngineError,
    SafelightError,
    StoppingError,
)
from safelight_service.core.timeline import Timeline
from safelight_service.fleet.frames import Frame, IdentityChanged
from safelight_service.fleet.pool import HostLostError, NoHostError

_log = structlog.get_logger()

_ELSEWHERE = (StoppingError, DeviceLostError)
"""Errors that another host may not have."""

_AT_WORK, _WAITING = 3, 1
"""Costs of a lost host in thirds of an attempt. A call that waits has hardly killed its host, but
one that had just begun looks the same."""

_SILENCES = 5
"""Waits, one after another, in which a host has to be silent to be lost."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a front waits for its engine hosts, in seconds."""

    silence_s: float = 5.0
    """A stream without a frame for so long is lost; hosts send a sign of life each second."""
    attempts: int = 5
    """Hosts that a call tries; those that are lost while it waits in their queues count less."""
    pause_s: float = 0.1
    """Pause before the second attempt; doubles with each further one."""
    describe_every_s: float = 2.0
    """Interval between two looks at the models."""
    heartbeat_s: float = 5.0
    """Interval of the events of a call that waits for a host."""


async def call_hosts(
    call: Callable[[float | None, frozenset[str]], AsyncGenerator[Frame, None]],
    deadline_at: float | None,
    timeline: Timeline,
    patience: Patience,
) -> AsyncGenerator[Frame, None]:
    """Yield the frames of a call; call another host where one is lost.

    Raises:
        SafelightError: the outcome of the call.
        NoEngineError: no host has answered.
        ModelChangedError: the hosts that answer serve another revision of the model.
    """
    excluded: set[str] = set()
    changed: set[str] = set()
    attempt, spent = 0, 0
    while spent < patience.attempts * _AT_WORK:
        if attempt:
            await asyncio.sleep(patience.pause_s * 2 ** ((spent - 1) // _AT_WORK))
        left_s = None if deadline_at is None else deadline_at - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise DeadlineError(0.0, 0.0)
        attempt += 1
        host, cost = "", _AT_WORK
        try:
            async with aclosing(call(left_s, frozenset(excluded))) as frames:
                while (frame := await _next(frames, patience.silence_s)) is not None:
                    host = frame.host
                    if frame.moments is not None:
                        frame.moments.write_to(timeline)
                        cost = _WAITING if frame.moments.is_waiting else _AT_WORK
                    if isinstance(frame.outcome, IdentityChanged):
                        raise ModelChangedError
                    if isinstance(frame.outcome, _ELSEWHERE):
                        raise HostLostError
                    if isinstance(frame.outcome, SafelightError):
                        raise frame.outcome
                    yield frame
                    if frame.outcome is not None:
                        return
            raise HostLostError
        except NoHostError:
            excluded.clear()  # better a host that has just failed than none
        except ModelChangedError:
            if host in changed:
                raise
            changed.add(host)
            excluded.add(host)
        except HostLostError:
            excluded.add(host)
            _log.warning("engine_host_lost", host=host, attempt=attempt)
        spent += cost
    raise ModelChangedError if changed else NoEngineError


async def _next(frames: AsyncGenerator[Frame, None], silence_s: float) -> Frame | None:
    """Return the next frame, or None at the end.

    Raises:
        HostLostError: the host has been silent for too long.
    """
    following = asyncio.ensure_future(anext(frames, None))
    try:
        for _ in range(_SILENCES):  # a pause of this process is one of them
            if (await asyncio.wait({following}, timeout=silence_s / _SILENCES))[0]:
                return following.result()
        raise HostLostError
    finally:
        following.cancel()
        await asyncio.wait({following})
