"""The base of both clients: settings, and the calls that they prepare."""

import threading

import grpc

from safelight._client.connection import Connection, Tls, route_by_id
from safelight._client.convert import request_to_proto
from safelight._client.generation_state import GenerationPlan
from safelight._client.retries import Retries
from safelight.options import (
    DEFAULT_LINGER_S,
    CallOptions,
    GenerateOptions,
    Metadata,
)
from safelight.v1 import text_to_image_pb2 as pb


class BaseClient:
    """Settings of a client. It prepares calls and makes none."""

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        tls: bool | Tls | grpc.ChannelCredentials = False,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> None:
        """Make a client of the service at `target`. It connects on its first call.

        Args:
            target: Any gRPC target, such as `localhost:50051`, `unix:/run/safelight.sock`
                or `dns:///safelight.example:50051`. The port of a bare host is 50051.
            token: Sent with each call as `authorization: Bearer TOKEN`, over plaintext
                too. Turn `tls` on unless the network itself is safe (loopback, a
                service mesh).
            tls: Encryption: False for plaintext, True with the authorities that gRPC
                trusts, a `Tls` with other certificates, or gRPC's own credentials.
            timeout: Seconds that a call may take unless it sets its own.
            metadata: Metadata of each call.

        Raises:
            ValueError: the target is a URL, the token cannot be sent, or the time-out
                is negative.
        """
        self._connection = Connection(
            target, token=token, tls=tls, timeout=timeout, metadata=metadata
        )
        self._closing = threading.Event()
        self._lock = threading.Lock()

    def _plan_call(self, request: object, options: CallOptions) -> Retries:
        return Retries(route_by_id(self._connection.call_arguments(options), request))

    def _plan_generation(self, prompt: str, options: GenerateOptions) -> GenerationPlan:
        arguments = self._connection.generate_arguments(options)
        request = request_to_proto(prompt, options)
        arguments = route_by_id(arguments, request)
        linger_s = _linger_s(request)
        return GenerationPlan(
            request, Retries(arguments, linger_s), self._closing, is_cancelled_by_id=linger_s > 0
        )

    def _plan_stream(
        self,
        request: pb.GenerateRequest | pb.WatchGenerationRequest,
        options: CallOptions,
        *,
        cancels: bool,
    ) -> GenerationPlan:
        if isinstance(request, pb.GenerateRequest):
            linger_s = _linger_s(request)
        else:
            linger_s, cancels = DEFAULT_LINGER_S, False
        arguments = route_by_id(self._connection.call_arguments(options), request)
        retries = Retries(arguments, linger_s)
        return GenerationPlan(
            request, retries, self._closing, is_cancelled_by_id=cancels and linger_s > 0
        )


def _linger_s(request: pb.GenerateRequest) -> float:
    """Return the seconds to resume a broken stream; 0 without an id, which resuming needs."""
    return request.linger.ToNanoseconds() / 1e9 if request.generation_id else 0.0
