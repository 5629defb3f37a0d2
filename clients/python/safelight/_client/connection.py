"""The connection: address and credentials of the service, and the arguments of calls."""

import re
import sys
from dataclasses import KW_ONLY, dataclass, field

import grpc
import grpc.aio

from safelight._client.retries import CallArguments
from safelight._client.target import complete_target, is_loopback
from safelight._version import __version__
from safelight.options import CallOptions, GenerateOptions, Metadata, refuse_unknown_options

_CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.primary_user_agent", f"safelight-python/{__version__}"),
    # A connection that died silently is noticed within 40 s of a call, and
    # proxies see traffic while a stream is silent. Idle connections send nothing.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    # `Retries` makes them. gRPC's own retries can outlast the deadline: a call that waits for
    # one while its connection is lost never ends.
    ("grpc.enable_retries", 0),
    # Each client has a connection of its own. gRPC would share one, with its limit on calls.
    ("grpc.use_local_subchannel_pool", 1),
)
_GENERATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")

_LONGEST_TIMEOUT_S = 1e9
"""31 years. gRPC fails a call at once whose deadline is too far away for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates for an encrypted connection, each as PEM bytes.

    Attributes:
        root_certificates: Authorities to trust; None for those of gRPC, or of the
            file that GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names.
        private_key: The client's key, for a service that asks for one.
        certificate_chain: The client's certificate, for `private_key`.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse half of a client certificate, which gRPC would ignore."""
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("private_key and certificate_chain must be given together")


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and credentials of the service.

    Attributes:
        target: The gRPC target, with a port.
        token: Token to send; None for none.
        tls: Encryption, as `Client` takes it.
        timeout: Seconds that a call may take unless it sets its own; None for no limit.
        metadata: Metadata of each call.
    """

    target: str
    _: KW_ONLY
    token: str | None = field(repr=False)
    tls: bool | Tls | grpc.ChannelCredentials
    timeout: float | None
    metadata: Metadata

    def __post_init__(self) -> None:
        """Refuse values that gRPC would fail on later, with an obscure message."""
        object.__setattr__(self, "target", complete_target(self.target))
        # gRPC's own message would hold the token.
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise ValueError("token must be visible ASCII characters")
        _check_timeout(self.timeout)

    def open_channel(self) -> grpc.Channel:
        """Open a channel; it connects on its first call."""
        credentials = self._credentials()
        channel = (
            grpc.insecure_channel(self.target, self._options())
            if credentials is None
            else grpc.secure_channel(self.target, credentials, self._options())
        )
        if not _is_traced():
            return channel
        from safelight.telemetry import TracingInterceptor

        return grpc.intercept_channel(channel, TracingInterceptor(self.target))

    def open_async_channel(self) -> grpc.aio.Channel:
        """Open a channel of the running event loop; it connects on its first call."""
        credentials = self._credentials()
        interceptors = None
        if _is_traced():
            from safelight.telemetry import async_tracing_interceptors

            interceptors = async_tracing_interceptors(self.target)
        if credentials is None:
            return grpc.aio.insecure_channel(
                self.target, self._options(), interceptors=interceptors
            )
        return grpc.aio.secure_channel(
            self.target, credentials, self._options(), interceptors=interceptors
        )

    def call_arguments(self, options: CallOptions) -> CallArguments:
        """Return the deadline and the metadata of a call.

        Raises:
            TypeError: an option does not exist.
            ValueError: the time-out is negative.
        """
        refuse_unknown_options(options, CallOptions.__optional_keys__)
        return self._arguments(options)

    def generate_arguments(self, options: GenerateOptions) -> CallArguments:
        """Return the deadline and the metadata of a generation.

        Raises:
            TypeError: an option does not exist.
            ValueError: the time-out is negative.
        """
        refuse_unknown_options(options, GenerateOptions.__optional_keys__)
        wait_for_model = options.get("wait_for_model", True)
        use_cache = options.get("use_cache", True)
        return self._arguments(
            options,
            ("x-wait-for-model", str(bool(wait_for_model)).lower()),
            ("x-use-cache", str(bool(use_cache)).lower()),
        )

    def _arguments(self, options: CallOptions, *extra: tuple[str, str]) -> CallArguments:
        authorization = [("authorization", f"Bearer {self.token}")] if self.token else []
        timeout = options.get("timeout", self.timeout)
        _check_timeout(timeout)
        return CallArguments(
            timeout=None if timeout is None else min(timeout, _LONGEST_TIMEOUT_S),
            metadata=(*self.metadata, *authorization, *extra, *options.get("metadata", ())),
        )

    def _options(self) -> tuple[tuple[str, str | int], ...]:
        # gRPC would send even calls to this machine through the proxy that `http_proxy` names.
        return _CHANNEL_OPTIONS + ((("grpc.enable_http_proxy", 0),) * is_loopback(self.target))

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if isinstance(self.tls, grpc.ChannelCredentials):
            return self.tls
        if isinstance(self.tls, Tls):
            return grpc.ssl_channel_credentials(
                self.tls.root_certificates, self.tls.private_key, self.tls.certificate_chain
            )
        return grpc.ssl_channel_credentials() if self.tls else None


def route_by_id(arguments: CallArguments, request: object) -> CallArguments:
    """Add the id of the generation that a request is about, if any, as `x-generation-id`.

    Proxies route by it, so that all calls about a generation reach the same replica.
    """
    generation_id = str(getattr(request, "generation_id", ""))
    if not _GENERATION_ID.fullmatch(generation_id):  # the service refuses others by name
        return arguments
    metadata = (*arguments["metadata"], ("x-generation-id", generation_id))
    return CallArguments(timeout=arguments["timeout"], metadata=metadata)


def _check_timeout(timeout_s: float | None) -> None:
    if timeout_s is not None and not timeout_s >= 0:
        raise ValueError(f"timeout must be 0 or more seconds, not {timeout_s}")


def _is_traced() -> bool:
    """Whether the program uses OpenTelemetry; others do not pay for importing it."""
    return "opentelemetry.trace" in sys.modules
