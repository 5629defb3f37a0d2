"""Fleet: what connects the service to the others of its fleet."""

from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.fleet.directory import Directory
from safelight_service.fleet.execution_leases import ExecutionLeases
from safelight_service.fleet.quotas import Quotas
from safelight_service.generations.generations import Generations
from safelight_service.grpc_server.relay import Peers, RelayingServicer
from safelight_service.grpc_server.servicer import TextToImageServicer
from safelight_service.grpc_server.tls import peer_credentials
from safelight_service.redis_link import RedisLink
from safelight_service.settings import FleetSettings, Settings
from safelight_settings import TrustedProxies

_RETRY_S = 1.0
"""Pause after the Redis server has failed to answer."""


class Fleet:
    """Connections to Redis and to the other services."""

    def __init__(self, settings: Settings, fleet: FleetSettings) -> None:
        """Read the certificates; connect at the first call.

        Raises:
            ConfigurationError: a certificate cannot be read.
        """
        self._settings = fleet
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._peers = Peers()
        if settings.tls is not None:
            credentials = peer_credentials(settings.tls, fleet.authorities)
            self._peers = Peers(credentials, fleet.server_name)
        self.quotas = None
        """Limits of tokens that hold in the whole fleet; None without tokens."""
        if settings.tokens_file is not None:
            self.quotas = Quotas(self._open_link("quotas"), fleet.lease_s)
        self.leases = None
        """Leases of executions; None unless the fleet shares results."""
        if settings.cache.enabled and settings.cache.redis_url is not None:
            self.leases = ExecutionLeases(self._open_link("executions"))
        self._directory: Directory | None = None

    def start(
        self, local: TextToImageServicer, generations: Generations, address: str
    ) -> pb_grpc.TextToImageServiceServicer:
        """Return a servicer that relays calls; `address` is the one that the server listens on."""
        fleet = self._settings
        self._directory = Directory(
            self._open_link("directory"), fleet.advertise or address, fleet.lease_s
        )
        self._directory.start(generations.knows)
        if self.quotas is not None:
            self.quotas.start()
        return RelayingServicer(local, self._directory, self._peers, self._proxies)

    async def close(self) -> None:
        """Give back all leases, and disconnect."""
        if self._directory is not None:
            await self._directory.close()
        if self.quotas is not None:
            await self.quotas.close()
        if self.leases is not None:
            await self.leases.close()
        await self._peers.close()

    def _open_link(self, name: str) -> RedisLink:
        url = self._settings.redis_url.get_secret_value()
        return RedisLink(url, retry_s=_RETRY_S, name=name)
