"""RayRouter: the request router of Ray Serve for engine hosts.

Serve makes one in each front, and tells it the loads that replicas report. The router knows the
calls of its own front better, and takes those of other fronts from the reports.
"""

from typing import Any
from weakref import WeakValueDictionary

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from safelight_service.fleet.routing import FRONT, Lane, Load, Loads, Route, add, rank


class RayRouter(FIFOMixin, RequestRouter):  # type: ignore[misc] # Ray's classes have no types
    """Prefers the replica on which a call costs least."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Start without calls."""
        self._calls: WeakValueDictionary[str, Route] = WeakValueDictionary()
        """Route of each call, by Serve's id; the end of a call may come before its beginning."""

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Note the calls whose replicas stop or have died."""
        super().update_replicas(replicas)
        present = {replica.replica_id.unique_id for replica in replicas}
        for route in tuple(self._calls.values()):
            route.is_host_leaving = route.host not in present

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the candidates by falling preference."""
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        loads = {name: self._find_loads(name, each) for name, each in replicas.items()}
        return [[replicas[name]] for name in rank(loads, _route_of(pending_request))]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Note a call, and tell its caller the replica."""
        route = _route_of(pending_request)
        route.host = replica_id.unique_id
        self._calls[pending_request.metadata.internal_request_id] = route

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Forget a call."""
        self._calls.pop(internal_request_id, None)

    def _find_loads(self, host: str, replica: RunningReplica) -> Loads:
        loads: dict[Lane, Load] = {}
        for front, reported in replica.routing_stats.items():
            if front != FRONT:
                for lane, (count, left) in reported.items():
                    add(loads, lane, count, left)
        for route in tuple(self._calls.values()):
            if route.host == host and route.lane:
                add(loads, route.lane, route.image_count, route.steps_left)
        return loads


def _route_of(pending_request: PendingRequest | None) -> Route:
    arguments = () if pending_request is None else pending_request.args
    return arguments[0] if arguments and isinstance(arguments[0], Route) else Route()
