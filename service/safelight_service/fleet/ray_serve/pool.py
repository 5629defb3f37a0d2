"""RayPool: engine hosts that are replicas of one deployment of Ray Serve.

Frames travel by Serve's direct gRPC transport: through Ray's object store each event would cost a
replica five times as much processor time, and calls of a front that dies would run on.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from safelight_service.core.backend import BackendStats
from safelight_service.core.model import ModelInfo
from safelight_service.core.request import GenerationRequest
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.pool import HostLostError, NoHostError
from safelight_service.fleet.routing import Route, lane_of

CALL_S = 5.0
"""Longest wait for an answer of Serve to a short call; Ray itself may wait for ever."""

ANSWER_S = 1.0
"""Longest wait for a short answer of a replica, which may be frozen."""

LOOK_S = 2.0
"""Longest wait for the answers of all replicas; those of frozen ones are left out."""

_SIGN_OF_LIFE_S = 1.0
_OPTIONS = {
    "_by_reference": False,
    "request_serialization": "pickle",
    "response_serialization": "pickle",
}


class RayPool:
    """Calls the replicas of one deployment."""

    def __init__(self, handle: DeploymentHandle[Any], *, has_logs: bool) -> None:
        """`has_logs` says whether the replicas keep logs for recovery."""
        self._handle = handle
        self._has_logs = has_logs
        self._runs: dict[str, Route] = {}
        """Routes of the runs in progress, by their ids."""

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe the models as one of the replicas sees them.

        Asks all, as Serve does not count that as load: routed calls would keep a pool from zero.
        """
        if not self._handle.running_replicas_populated():
            raise NoHostError
        answers: list[tuple[ModelInfo, ...]] = await self._ask("describe")
        if not answers:
            raise HostLostError
        return answers[0]

    async def stats(self) -> tuple[BackendStats, ...]:
        """Return the load of each replica that answers."""
        if not self._handle.running_replicas_populated():
            return ()
        with suppress(HostLostError):
            return tuple(await self._ask("stats"))
        return ()

    async def prepare(
        self, request: GenerationRequest, left_s: float | None, excluded: frozenset[str]
    ) -> AsyncGenerator[Frame, None]:
        """Resolve a request on a replica that is not excluded."""
        route = Route(excluded=excluded)
        async for frame in self._stream("prepare", route, request, left_s):
            yield frame

    async def run(self, order: RunOrder, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Run an order on a replica that is not excluded."""
        request = order.accepted.request
        parameters = request.parameters
        lane = lane_of(order.accepted.model, parameters.width, parameters.height)
        route = Route(lane, request.image_count, parameters.num_inference_steps, excluded)
        self._runs[order.run_id] = route
        try:
            async for frame in self._stream("run", route, order):
                for event in frame.events:
                    route.note(event)
                yield frame
        finally:
            del self._runs[order.run_id]

    async def note(self, run_id: str, *, is_abandoned: bool, is_joined: bool) -> None:
        """Note the watchers of a run at its replica."""
        await self._tell(run_id, "note", is_abandoned, is_joined)

    async def note_cancelled(self, run_id: str) -> None:
        """Note at the replica of a run that nobody will continue it."""
        if self._has_logs:
            await self._tell(run_id, "note_cancelled")

    async def close(self) -> None:
        """Close the router of the deployment."""
        with suppress(Exception):
            await asyncio.wait_for(self._handle.shutdown_async(), CALL_S)

    async def _ask(self, method: str) -> list[Any]:
        """Return the answers of the replicas that answer in time.

        Raises:
            HostLostError: Serve knows no replica.
        """
        # Only the blocking method waits for each replica by itself: with `results_async`, one
        # frozen replica would hide the others.
        ask = self._handle.broadcast(method).results
        asking = asyncio.to_thread(ask, timeout_s=LOOK_S, return_exceptions=True)
        answers: list[Any] = await _bound(asking, CALL_S)
        return [answer for answer in answers if not isinstance(answer, BaseException)]

    async def _tell(self, run_id: str, method: str, *arguments: object) -> None:
        """Call a short method of the replica of a run, if it has one."""
        host = self._runs[run_id].host if run_id in self._runs else ""
        if host:
            handle = self._handle.options(method_name=method, **_OPTIONS)
            with suppress(HostLostError):
                await _bound(handle.remote(Route(only=host), run_id, *arguments), ANSWER_S)

    async def _stream(
        self, method: str, route: Route, *arguments: object
    ) -> AsyncGenerator[Frame, None]:
        """Yield the frames of a call, and signs of life while no replica has it."""
        handle = self._handle.options(stream=True, method_name=method, **_OPTIONS)
        stream = handle.remote(route, *arguments)
        following: asyncio.Future[Frame] | None = None
        is_host_known = has_begun = has_ended = False
        try:
            while True:
                if following is None:
                    following = asyncio.ensure_future(anext(stream))
                done, _ = await asyncio.wait({following}, timeout=_SIGN_OF_LIFE_S)
                if done:
                    frame, following = following.result(), None
                    has_begun = has_begun or _has_begun(frame)
                    has_ended = frame.outcome is not None
                    yield frame
                elif not is_host_known:
                    # Without a host, Serve starts one, or all are full.
                    is_host_known = bool(route.host)
                    yield Frame(route.host)
                if route.is_host_leaving and not (has_begun or has_ended):
                    raise HostLostError
        except StopAsyncIteration:
            return
        except (RayError, RayServeException, OSError) as error:
            raise HostLostError from error
        finally:
            if not has_ended:
                stream.cancel()
            if following is not None:
                following.cancel()
                with suppress(BaseException):
                    await following


def _has_begun(frame: Frame) -> bool:
    """Return whether the host makes images by now."""
    return frame.moments is not None and frame.moments.timeline.started_at is not None


async def _bound(answer: Awaitable[Any], limit_s: float) -> Any:
    """Return an answer of Ray.

    Raises:
        HostLostError: it failed, or took too long.
    """
    try:
        return await asyncio.wait_for(answer, limit_s)
    except (TimeoutError, RayError, RayServeException) as error:
        raise HostLostError from error
