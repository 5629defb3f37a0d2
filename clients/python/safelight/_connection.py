"""The connection: where the service is, how to reach it and what to send along."""

import json
import re
import sys
from dataclasses import KW_ONLY, dataclass, field
from typing import TypedDict

import grpc
import grpc.aio

from safelight._version import __version__
from safelight.options import CallOptions, GenerateOptions, Metadata, refuse_unknown_options

_SERVICE_CONFIG = {
    "methodConfig": [
        {
            "name": [{"service": "safelight.v1.TextToImageService"}],
            # Every method may be called twice, Generate because of its id. gRPC never does so once
            # a message has come, and heeds a service that asks for patience.
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}

_CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.primary_user_agent", f"safelight-python/{__version__}"),
    # A connection that died without a word is noticed within 40 s of a call, and
    # proxies see life in a long silence. Idle connections send nothing.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Encryption with certificates of one's own; all are PEM.

    Attributes:
        root_certificates: Authorities to trust; None for those that gRPC brings
            (the environment variable GRPC_DEFAULT_SSL_ROOTS_FILE_PATH replaces
            them).
        private_key: The client's key, for a service that asks for one.
        certificate_chain: The client's certificate, beside `private_key`.
    """

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None

    def __post_init__(self) -> None:
        """Refuse half of a client certificate, which gRPC would ignore."""
        if (self.private_key is None) != (self.certificate_chain is None):
            raise ValueError("private_key and certificate_chain must be given together")


class CallArguments(TypedDict):
    """What gRPC takes beside a request."""

    timeout: float | None
    metadata: tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Connection:
    """What both clients know about the service."""

    target: str
    _: KW_ONLY
    token: str | None = field(repr=False)
    tls: bool | Tls | grpc.ChannelCredentials
    timeout: float | None
    metadata: Metadata

    def __post_init__(self) -> None:
        """Refuse what gRPC would only fail on later, and then obscurely."""
        if re.match(r"(https?|grpcs?)://", self.target):
            raise ValueError(
                f"target must be a gRPC target such as localhost:50051, not {self.target!r}"
            )
        # gRPC's own message would hold the token.
        if self.token is not None and not re.fullmatch(r"[!-~]+", self.token):
            raise ValueError("token must be visible ASCII characters")

    def open_channel(self) -> grpc.Channel:
        """Open a channel; it connects on its first call."""
        credentials = self._credentials()
        channel = (
            grpc.insecure_channel(self.target, _CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(self.target, credentials, _CHANNEL_OPTIONS)
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
                self.target, _CHANNEL_OPTIONS, interceptors=interceptors
            )
        return grpc.aio.secure_channel(
            self.target, credentials, _CHANNEL_OPTIONS, interceptors=interceptors
        )

    def call_arguments(self, options: CallOptions) -> CallArguments:
        """Return the deadline and the metadata of a call.

        Raises:
            TypeError: an option does not exist.
        """
        refuse_unknown_options(options, CallOptions.__optional_keys__)
        return self._arguments(options)

    def generate_arguments(self, options: GenerateOptions) -> CallArguments:
        """Return the deadline and the metadata of a generation.

        Raises:
            TypeError: an option does not exist.
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
        return CallArguments(
            timeout=options.get("timeout", self.timeout),
            metadata=(*self.metadata, *authorization, *extra, *options.get("metadata", ())),
        )

    def _credentials(self) -> grpc.ChannelCredentials | None:
        if isinstance(self.tls, grpc.ChannelCredentials):
            return self.tls
        if isinstance(self.tls, Tls):
            return grpc.ssl_channel_credentials(
                self.tls.root_certificates, self.tls.private_key, self.tls.certificate_chain
            )
        return grpc.ssl_channel_credentials() if self.tls else None


def _is_traced() -> bool:
    """Whether the program uses OpenTelemetry; one that does not is not to pay for it."""
    return "opentelemetry.trace" in sys.modules
