"""Round robin: a router of Ray Serve to compare the product's with."""

from typing import Any

from ray.serve.request_router import (
    FIFOMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

ROUTER = f"{__name__}:RoundRobin"


class RoundRobin(FIFOMixin, RequestRouter):  # type: ignore[misc] # Ray's classes have no types
    """Gives each replica one run after another."""

    def initialize_state(self, **kwargs: Any) -> None:
        """Start with the first replica."""
        self._run_count = 0

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """Return the next replica, by the order of their names."""
        ordered = sorted(candidate_replicas, key=lambda replica: replica.replica_id.unique_id)
        return [[ordered[self._run_count % len(ordered)]]] if ordered else []

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Go on to the next replica after a run."""
        self._run_count += pending_request.metadata.call_method == "run"
