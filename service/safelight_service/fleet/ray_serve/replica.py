"""Ray replica: an engine of a pool, with telemetry and logs of its own."""

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from ray import serve

from safelight_service.core.backend import Backend, BackendStats
from safelight_service.core.errors import DeviceLostError
from safelight_service.core.model import ModelInfo
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.core.request import GenerationRequest
from safelight_service.fleet.engine_host import EngineHost
from safelight_service.fleet.engine_observer import open_engine_observer
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.routing import Loads, Route
from safelight_service.library_variables import choose_variables
from safelight_service.logs import configure_logs
from safelight_service.settings import Settings

MakeEngine = Callable[[Settings, Observer], Backend]


class EngineReplica:
    """An engine in a replica of Ray Serve. Each call comes with the route that led it here."""

    async def __init__(  # type: ignore[misc] # as Serve allows
        self, settings: Settings, make_engine: MakeEngine | None = None
    ) -> None:
        """`make_engine` replaces the local engine."""
        os.environ |= choose_variables(os.environ)
        if make_engine is None:
            # Imported here: the front that deploys needs no torch.
            from safelight_service import app

            make_engine = app.make_engine
        configure_logs(settings)
        host_id = serve.get_replica_context().replica_id.unique_id
        telemetry = open_engine_observer(settings)
        observer = telemetry or NULL_OBSERVER
        self._engine = make_engine(settings, observer)
        self._host = EngineHost(self._engine, host_id, observer=observer)
        if telemetry is not None:
            telemetry.start(self._engine, {}, list)
        await self._engine.start()

    async def describe(self) -> tuple[ModelInfo, ...]:
        """Describe all models."""
        return self._host.describe()

    async def stats(self) -> BackendStats:
        """Return the present load."""
        return self._host.stats()

    async def find_process(self) -> tuple[int, int]:
        """Return the id of the process, and the number of its running generations."""
        return os.getpid(), self._host.stats().running_count

    async def note(self, route: Route, run_id: str, is_abandoned: bool, is_joined: bool) -> None:
        """Note the watchers of a run."""
        self._host.note(run_id, is_abandoned=is_abandoned, is_joined=is_joined)

    async def note_cancelled(self, route: Route, run_id: str) -> None:
        """Note that a run is not to be continued."""
        self._host.note_cancelled(run_id)

    async def prepare(
        self, route: Route, request: GenerationRequest, left_s: float | None
    ) -> AsyncGenerator[Frame, None]:
        """Resolve a request."""
        async with aclosing(self._host.prepare(request, left_s)) as frames:
            async for frame in frames:
                yield frame

    async def run(self, route: Route, order: RunOrder) -> AsyncGenerator[Frame, None]:
        """Make the images of an order."""
        async with aclosing(self._host.run(order)) as frames:
            async for frame in frames:
                yield frame

    async def record_routing_stats(self) -> Mapping[str, Loads]:
        """Return the load by fronts and lanes, for the routers of all fronts."""
        return self._host.loads()

    async def check_health(self) -> None:
        """Fail once a device is lost, so that Serve replaces the replica.

        Raises:
            DeviceLostError: a device is lost.
        """
        if self._engine.is_lost:
            raise DeviceLostError
