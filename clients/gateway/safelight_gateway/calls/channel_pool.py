"""The channel pool: connections to the service, and the shares of concurrent calls on them."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc.aio
from safelight import AsyncClient, Tls

from safelight_gateway.errors import GatewayError
from safelight_gateway.settings import CallSettings, Settings, TargetTlsSettings
from safelight_gateway.shares import Shares

_RETRY_S = 1.0


class ChannelPool:
    """Clients of the service, each with a connection of its own.

    A connection carries a limited number of calls, and gRPC delays further ones silently. The
    pool refuses calls before that.
    """

    def __init__(self, settings: Settings) -> None:
        """Create the clients, which connect on their first calls.

        Raises:
            OSError: a file that the settings name cannot be read.
        """
        tls = _tls(settings.target_tls)
        calls: CallSettings = settings.calls
        self._clients = [AsyncClient(settings.target, tls=tls) for _ in range(calls.channels)]
        self._prober = AsyncClient(settings.target, tls=tls)
        self._counts = [0] * calls.channels
        self._shares = Shares(calls.max_count, calls.max_per_caller)

    @property
    def health_channel(self) -> grpc.aio.Channel:
        """A connection without calls of callers, for health checks."""
        return self._prober.channel

    @contextmanager
    def lease(self, holder: str) -> Iterator[AsyncClient]:
        """Yield the client with the fewest calls, for one call within the block.

        Raises:
            GatewayError: the holder has its share of calls.
        """
        if not self._shares.take(holder):
            raise GatewayError(
                429,
                f"{self._shares.held_by(holder)} of your requests are in progress; try again when "
                "one has ended",
                "TOO_MANY_GENERATIONS",
                (),
                _RETRY_S,
            )
        index = self._counts.index(min(self._counts))
        self._counts[index] += 1
        try:
            yield self._clients[index]
        finally:
            self._counts[index] -= 1
            self._shares.give_back(holder)

    async def close(self) -> None:
        """Close all connections and cancel all calls in progress."""
        for client in (*self._clients, self._prober):
            await client.close()


def _tls(settings: TargetTlsSettings | None) -> bool | Tls:
    if settings is None:
        return False
    authorities, certificate, key = (
        path.read_bytes() if path is not None else None
        for path in (settings.authorities, settings.certificate, settings.private_key)
    )
    return Tls(root_certificates=authorities, private_key=key, certificate_chain=certificate)
