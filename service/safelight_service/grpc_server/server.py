"""Server: a grpc.aio server with health and reflection, from start to stop."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.auth.tokens import Tokens
from safelight_service.cache import ResultCache
from safelight_service.core.backend import Backend
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.descriptors import bound_connections
from safelight_service.generations.generations import Generations
from safelight_service.grpc_server.drain import OngoingCalls
from safelight_service.grpc_server.fleet import Fleet
from safelight_service.grpc_server.interceptors.auth import AccessInterceptor
from safelight_service.grpc_server.interceptors.errors import FaultInterceptor
from safelight_service.grpc_server.interceptors.open_calls import OpenCallsInterceptor
from safelight_service.grpc_server.revocation import Revocation
from safelight_service.grpc_server.servicer import TextToImageServicer
from safelight_service.grpc_server.tls import server_credentials
from safelight_service.settings import ConnectionSettings, Settings
from safelight_service.telemetry.signals import open_telemetry
from safelight_settings import TrustedProxies

if TYPE_CHECKING:
    from safelight_service.telemetry.usage_metrics import ListAccounts

SERVICE = pb.DESCRIPTOR.services_by_name["TextToImageService"].full_name

_Status = health_pb2.HealthCheckResponse

_MAX_PENDING = 3000
"""Calls of a method that may await the event loop; each takes about 10 KiB."""

_LINGER_S = 1.0
"""Time at the very end for health watchers to leave, and for statuses to be sent."""


class AddressInUseError(Exception):
    """The listen address cannot be bound."""


class Server:
    """Serves a backend; `async with` starts it and stops it gracefully."""

    def __init__(self, settings: Settings, make_backend: Callable[[Observer], Backend]) -> None:
        """Read the files of the settings, and make the backend.

        Raises:
            ConfigurationError: a file cannot be used, or the environment asks for telemetry
                that is not supported.
        """
        self._settings = settings
        self._credentials = server_credentials(settings.tls) if settings.tls else None
        self._ongoing = OngoingCalls()
        self._telemetry = open_telemetry(settings)
        observer = self._telemetry or NULL_OBSERVER
        interceptors: list[grpc.aio.ServerInterceptor] = [
            FaultInterceptor(SERVICE, self._ongoing, settings.generations.stall_s, observer)
        ]
        interceptors.insert(0, _limit_calls(settings, observer))
        models = [model.name for model in settings.models]
        self._list_accounts: ListAccounts = lambda: [(model, "") for model in models]
        tokens: Tokens | None = None
        if settings.tokens_file is not None:
            tokens = Tokens(settings.tokens_file, models)
            self._list_accounts = tokens.list_accounts
            interceptors.insert(0, AccessInterceptor(tokens, observer))
        if self._telemetry is not None:
            from safelight_service.grpc_server.interceptors.tracing import TracingInterceptor

            tracing = TracingInterceptor([SERVICE], self._telemetry.tracers, self._telemetry.meters)
            interceptors.insert(0, tracing)
        self._backend = make_backend(observer)
        self._health = health.HealthServicer()
        self._cache = ResultCache.open(settings.cache)
        self._fleet = None if settings.fleet is None else Fleet(settings, settings.fleet)
        self._generations = Generations(
            self._backend,
            self._cache,
            settings.generations,
            observer,
            None if self._fleet is None else self._fleet.quotas,
            None if self._fleet is None else self._fleet.leases,
            settings.heartbeat_s,
        )
        self._revocation = (
            None if tokens is None else Revocation(tokens, self._ongoing, self._generations)
        )
        self._server = grpc.aio.server(
            interceptors=interceptors, options=_options(settings.connections)
        )
        self._port = 0

    @property
    def address(self) -> str:
        """HOST:PORT that the server listens on."""
        host = self._settings.listen.rpartition(":")[0]
        return f"{host}:{self._port}"

    async def start(self) -> None:
        """Listen, then load the models; health turns to SERVING once they are loaded.

        Raises:
            AddressInUseError: the address cannot be bound.
            ModelFailedError: a preloaded model cannot be loaded.
        """
        try:
            self._port = self._add_port(self._settings.listen)
        except RuntimeError:
            raise AddressInUseError(
                f"cannot listen on {self._settings.listen}: the port is taken, or the host is "
                "not an address of this machine"
            ) from None
        local = TextToImageServicer(
            self._backend,
            self._generations,
            self._telemetry or NULL_OBSERVER,
            TrustedProxies(self._settings.trusted_proxies),
        )
        servicer: pb_grpc.TextToImageServiceServicer = local
        if self._fleet is not None:
            servicer = self._fleet.start(local, self._generations, self.address)
        pb_grpc.add_TextToImageServiceServicer_to_server(servicer, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if self._settings.reflection:
            names = (
                SERVICE,
                health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
                reflection.SERVICE_NAME,
            )
            reflection.enable_server_reflection(names, self._server)
        if self._telemetry is not None:
            self._telemetry.start(self._backend, self._cache.stats, self._list_accounts)
        await self._set_health(_Status.NOT_SERVING)
        await self._server.start()
        if self._revocation is not None:
            self._revocation.start()
        await self._backend.start()
        await self._set_health(_Status.SERVING)

    @property
    def is_lost(self) -> bool:
        """Whether the backend is lost and only a new process helps."""
        return self._backend.is_lost

    async def wait_until_lost(self) -> None:
        """Wait until the backend is lost."""
        await self._backend.wait_until_lost()

    async def stop(self) -> None:
        """Report NOT_SERVING, let running generations finish within the grace time, and stop.

        Refuses new and waiting generations with UNAVAILABLE and a retry delay, as well as those
        that do not finish in time. Closes the port last, so that clients get that status and not
        a refused connection.
        """
        await self._health.enter_graceful_shutdown()
        self._ongoing.close()
        self._backend.drain()
        await self._ongoing.finish(self._settings.grace_s)
        if self._revocation is not None:
            await self._revocation.stop()
        await self._generations.close()
        if self._fleet is not None:
            await self._fleet.close()
        await self._server.stop(_LINGER_S)
        await self._backend.close()
        if self._telemetry is not None:
            await self._telemetry.close()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def _add_port(self, address: str) -> int:
        if self._credentials is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, self._credentials)

    async def _set_health(self, status: int) -> None:
        for service in ("", SERVICE):
            await self._health.set(service, status)


def _options(connections: ConnectionSettings) -> list[tuple[str, int]]:
    options = [
        # A second server on the same port must fail, and not take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", bound_connections(connections.max_count)),
        # By default a silent connection keeps its place for two minutes, and an idle one for ever.
        ("grpc.server_handshake_timeout_ms", _ms(connections.handshake_s)),
        ("grpc.max_connection_idle_ms", _ms(connections.idle_s)),
        # Counts calls that were reset at once but still await the event loop. Beyond a limit for
        # each method gRPC ends random calls, of any client, with a bare CANCELLED: by default
        # beyond 1,000, the calls of two connections.
        ("grpc.server.max_pending_requests", _MAX_PENDING),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _MAX_PENDING),
        ("grpc.max_concurrent_streams", connections.max_stream_count),
        # Detect clients whose connection has died silently.
        ("grpc.keepalive_time_ms", _ms(connections.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(connections.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        # Let clients ping as well; by default frequent pings end in GOAWAY.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        # gRPC's default limits, except for its soft limit on metadata: that is half as high, and
        # between the two gRPC refuses calls at random.
        ("grpc.max_receive_message_length", 4 * 1024 * 1024),
        ("grpc.max_metadata_size", 16 * 1024),
        ("grpc.absolute_max_metadata_size", 16 * 1024),
    ]
    if connections.max_age_s is not None:
        options.append(("grpc.max_connection_age_ms", _ms(connections.max_age_s)))
    return options


def _limit_calls(settings: Settings, observer: Observer) -> OpenCallsInterceptor:
    connections = settings.connections
    proxies = TrustedProxies(settings.trusted_proxies)
    return OpenCallsInterceptor(
        connections.max_calls_per_caller, connections.request_s, proxies, observer
    )


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
