"""Connections: admits them within the limits, and closes those that have used up their time."""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from safelight_gateway.pace import Pace
from safelight_gateway.settings import ConnectionSettings
from safelight_gateway.shares import Shares, holder_of
from safelight_settings import TrustedProxies, normalize_host

_log = logging.getLogger("safelight_gateway")


class Connection(Protocol):
    """An open connection."""

    @property
    def idle_since_s(self) -> float | None:
        """Begin of its idleness on the loop's clock; None while a request is in progress."""

    def enforce(self, now_s: float) -> None:
        """End it if it has used up its time."""

    def end(self) -> None:
        """End it, and free its place at once."""


class Connections:
    """The open connections of a server."""

    def __init__(
        self, settings: ConnectionSettings, proxies: TrustedProxies, capacity: int
    ) -> None:
        """Admit at most `capacity` connections."""
        self.settings = settings
        self._proxies = proxies
        self._capacity = capacity
        self._count = 0
        self._shares = Shares(capacity, settings.max_per_address)
        self._pace = Pace(settings.opened_per_s)
        self._open: set[Connection] = set()

    def admit(self, host: str) -> Callable[[], None] | None:
        """Admit a connection of a host; return what to call when it has closed, None to refuse."""
        host = normalize_host(host)
        is_proxy = self._proxies.trusts(host)
        holder = holder_of(host)
        held = self._shares.held_by(holder)
        if self._count >= self._capacity and held == 0:
            self._close_longest_idle()
        is_full = self._count >= self._capacity
        if is_full or not (is_proxy or self._shares.take(holder)):
            _log.warning("refused a connection of %s, which has %d of %d", host, held, self._count)
            return None
        self._count += 1

        def release() -> None:
            nonlocal holder
            if holder:
                self._count -= 1
                if not is_proxy:
                    self._shares.give_back(holder)
                holder = ""

        return release

    async def wait_to_open(self, host: str) -> None:
        """Wait until an admitted connection of a host may be read."""
        if not self._proxies.trusts(host):
            await self._pace.wait(holder_of(normalize_host(host)))

    def add(self, connection: Connection) -> None:
        """Watch over the time of a connection."""
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        """Forget a connection that has closed."""
        self._open.discard(connection)

    def sweep(self) -> None:
        """End all connections that have used up their time."""
        now_s = asyncio.get_running_loop().time()
        for connection in [*self._open]:
            connection.enforce(now_s)

    def _close_longest_idle(self) -> None:
        """End the connection that is idle for the longest time, if any is."""
        idle = [(each.idle_since_s, each) for each in self._open]
        longest = min(
            ((since, each) for since, each in idle if since is not None),
            key=lambda pair: pair[0],
            default=None,
        )
        if longest is not None:
            longest[1].end()
