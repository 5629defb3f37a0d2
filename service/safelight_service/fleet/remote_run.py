"""RemoteRun: one run of a front, on one engine host or on several, one after another."""

import uuid
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from safelight_service.core.backend import Prepared
from safelight_service.core.events import (
    Accepted,
    EventCallback,
    Image,
    ModelLoading,
    Preview,
    Progress,
    Restarted,
)
from safelight_service.core.tenant import NO_TENANT, Tenant
from safelight_service.fleet.frames import Frame, RunOrder
from safelight_service.fleet.pool import Pool
from safelight_service.fleet.routing import FRONT


@dataclass(frozen=True)
class RemotePrepared(Prepared):
    """A prepared request and the pool for it."""

    pool: Pool = field(kw_only=True)
    deadline_at: float | None = field(default=None, kw_only=True)
    """The deadline by this host's time.monotonic."""
    tenant: Tenant = field(default=NO_TENANT, kw_only=True)
    cache_scope: str = field(default="", kw_only=True)
    run_key: str = field(default="", kw_only=True)


class RemoteRun:
    """The order for its hosts, and the images that its watchers have received."""

    def __init__(self, prepared: RemotePrepared, on_event: EventCallback) -> None:
        self._id = uuid.uuid4().hex
        self._prepared = prepared
        self._on_event = on_event
        self.is_accepted = False
        """Whether a host has taken the run, and the watchers know."""
        self.restart_count = 0
        """Hosts that were lost while they made the images."""
        self._sent: set[int] = set()
        """Indices of the images that the watchers have."""
        self._has_begun = False
        """Whether the present host makes the images."""
        self._must_announce = False
        """Whether the watchers do not know yet that another host continues."""
        self._noted = self._watchers

    @property
    def _watchers(self) -> tuple[bool, bool]:
        """Whether the run is abandoned, and whether further watchers have joined."""
        timeline = self._prepared.timeline
        return timeline.abandoned_at is not None, timeline.joined_at is not None

    def call(self, left_s: float | None, excluded: frozenset[str]) -> AsyncGenerator[Frame, None]:
        """Run on a host that is not excluded."""
        if self._has_begun:
            self._has_begun, self._must_announce = False, True
            self.restart_count += 1
        self._noted = self._watchers
        order = RunOrder(
            self._id,
            FRONT,
            self._prepared.accepted,
            self._prepared.model_identity,
            left_s,
            self._prepared.tenant,
            self._prepared.cache_scope,
            self._prepared.timeline.token,
            self._prepared.run_key or self._id,
            self._prepared.timeline.traceparent,
            *self._noted,
        )
        return self._prepared.pool.run(order, excluded)

    def publish(self, frame: Frame) -> None:
        """Publish the events of a frame, but no image twice."""
        for event in frame.events:
            match event:
                case ModelLoading():
                    pass
                case Accepted():
                    self._accept()
                    continue
                case Restarted():
                    self._announce(event.recovered_step_count)
                    continue
                case _ if self._must_announce:
                    self._announce(0)
            if isinstance(event, Progress | Preview | Image):
                self._has_begun = True
            if isinstance(event, Image):
                if event.index in self._sent:
                    continue
                self._sent.add(event.index)
            self._on_event(event)

    def _accept(self) -> None:
        """Publish that a host has taken the run, unless an earlier host had."""
        if not self.is_accepted:
            self.is_accepted = True
            self._on_event(self._prepared.accepted)

    def _announce(self, recovered_step_count: int) -> None:
        """Publish that another host continues, perhaps one that another front had lost."""
        self._must_announce = False
        self.restart_count = max(self.restart_count, 1)
        self._on_event(Restarted(self.restart_count, recovered_step_count))

    async def note_watchers(self) -> None:
        """Note at the hosts whether the run is still watched, if that has changed."""
        if self._watchers != self._noted:
            self._noted = self._watchers
            is_abandoned, is_joined = self._noted
            await self._prepared.pool.note(self._id, is_abandoned=is_abandoned, is_joined=is_joined)

    async def note_cancelled(self) -> None:
        """Note at the host that nobody will continue the run, unless its callers may call again."""
        prepared = self._prepared
        if prepared.timeline.cancelled_at is not None or not prepared.run_key:
            await prepared.pool.note_cancelled(self._id)
