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
"""Longest wait for an answer to a short call; Ray itself may wait for ever."""

_SIGN_OF_LIFE_S = 1.0
_OPTIONS = {
    "_by_reference": False,
    "request_serialization": "pickle",
    "response_serialization": "pickle",
}


class RayPool:
    """Calls the replicas of one deployment."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe the models as one of the replicas sees them.

        Asks all, as Serve does not count that as load: routed calls would keep a pool from zero.
        """
        if not self._handle.running_replicas_populated():
            raise NoHostError
        answers = await _bound(self._handle.broadcast("describe").results_async())
        models: tuple[ModelInfo, ...] = answers[0]
        return models

    async def stats(self) -> tuple[BackendStats, ...]:
        """Return the load of each replica that answers."""
        if not self._handle.running_replicas_populated():
            return ()
        with suppress(HostLostError):
            return tuple(await _bound(self._handle.broadcast("stats").results_async()))
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
        size = request.parameters.width, request.parameters.height
        route = Route(lane_of(order.accepted.model, *size), request.image_count, excluded)
        async for frame in self._stream("run", route, order):
            yield frame

    async def note(self, run_id: str, *, is_abandoned: bool, is_joined: bool) -> None:
        """Note the watchers of a run at all replicas."""
        with suppress(HostLostError):
            notes = self._handle.broadcast("note", run_id, is_abandoned, is_joined)
            await _bound(notes.results_async())

    async def close(self) -> None:
        """Close the router of the deployment."""
        with suppress(Exception):
            await asyncio.wait_for(self._handle.shutdown_async(), CALL_S)

    async def _stream(
        self, method: str, route: Route, *arguments: object
    ) -> AsyncGenerator[Frame, None]:
        """Yield the frames of a call, and signs of life while no replica has it."""
        handle = self._handle.options(stream=True, method_name=method, **_OPTIONS)
        stream = handle.remote(route, *arguments)
        following: asyncio.Future[Frame] | None = None
        is_host_known = has_ended = False
        try:
            while True:
                if following is None:
                    following = asyncio.ensure_future(anext(stream))
                done, _ = await asyncio.wait({following}, timeout=_SIGN_OF_LIFE_S)
                if done:
                    frame, following = following.result(), None
                    has_ended = frame.outcome is not None
                    yield frame
                elif not is_host_known:
                    # Without a host, Serve starts one, or all are full.
                    is_host_known = bool(route.host)
                    yield Frame(route.host)
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


async def _bound(answer: Awaitable[Any]) -> Any:
    """Return an answer of Ray.

    Raises:
        HostLostError: it failed, or took too long.
    """
    try:
        return await asyncio.wait_for(answer, CALL_S)
    except (TimeoutError, RayError, RayServeException) as error:
        raise HostLostError from error
