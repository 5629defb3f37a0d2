"""RayRouter: the request router of Ray Serve for engine hosts.

Serve makes one in each front, and tells it the loads that replicas report; it adds the calls that
this front has sent since.
"""

from collections import Counter
from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

from safelight_service.fleet.routing import Lane, Route, rank, take_larger


class RayRouter(FIFOMixin, RequestRouter):  # type: ignore[misc] # Ray's classes have no types
    """Prefers the replica on which a call costs least."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Start without calls."""
        self._sent: dict[str, Counter[Lane]] = {}
        """Images sent to each replica that have not come back."""
        self._calls: dict[str, tuple[str, Route]] = {}
        """Replica and route of each call, by Serve's id."""

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the candidates by falling preference."""
        route = _route_of(pending_request)
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        loads = {
            name: take_larger(replica.routing_stats, self._sent.get(name, {}))
            for name, replica in replicas.items()
        }
        return [[replicas[name]] for name in rank(loads, route)]

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Count a call, and tell its caller the replica."""
        route = _route_of(pending_request)
        route.host = replica_id.unique_id
        if route.lane:
            self._calls[pending_request.metadata.internal_request_id] = route.host, route
            self._sent.setdefault(route.host, Counter())[route.lane] += route.image_count

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Forget a call."""
        host, route = self._calls.pop(internal_request_id, ("", Route()))
        if host in self._sent:
            self._sent[host][route.lane] -= route.image_count
            self._sent[host] = +self._sent[host]
            if not self._sent[host]:
                del self._sent[host]


def _route_of(pending_request: PendingRequest | None) -> Route:
    arguments = () if pending_request is None else pending_request.args
    return arguments[0] if arguments and isinstance(arguments[0], Route) else Route()
