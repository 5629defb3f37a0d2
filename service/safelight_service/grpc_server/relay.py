"""Relay: a servicer that hands calls about a generation to the front that holds it."""

import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.auth.tokens import current_owner
from safelight_service.fleet.directory import Directory
from safelight_service.grpc_server.servicer import Context, TextToImageServicer
from safelight_service.grpc_server.status import DOMAIN
from safelight_service.grpc_server.tenants import FORWARDED_FOR, find_client
from safelight_settings import TrustedProxies

_RELAYED = "x-safelight-relayed"
"""Marks a call that another front has relayed, so that it is not relayed again."""

_PASSED_ON = frozenset(
    {"authorization", "x-use-cache", "x-wait-for-model", "traceparent", "tracestate"}
)

_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # the relay itself decides what to do without the peer
    # Tries again soon where a peer was gone. To close its channel would cancel all calls to it.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 10_000),  # a frozen peer is as good as gone
    ("grpc.keepalive_timeout_ms", 5_000),
]


class Peers:
    """Channels to the other fronts, by address."""

    def __init__(
        self, credentials: grpc.ChannelCredentials | None = None, server_name: str = ""
    ) -> None:
        """`server_name` is the name in their certificates, if not the host of the address."""
        self._credentials = credentials
        self._options = list(_OPTIONS)
        if server_name:
            self._options.append(("grpc.ssl_target_name_override", server_name))
        self._channels: dict[str, grpc.aio.Channel] = {}

    def __getitem__(self, address: str) -> "pb_grpc.TextToImageServiceAsyncStub":
        """Return the stub of the front at an address."""
        if address not in self._channels:
            self._channels[address] = (
                grpc.aio.insecure_channel(address, self._options)
                if self._credentials is None
                else grpc.aio.secure_channel(address, self._credentials, self._options)
            )
        return pb_grpc.TextToImageServiceStub(self._channels[address])

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


class RelayingServicer(pb_grpc.TextToImageServiceServicer):
    """Serves the generations of this front itself, and relays those of others.

    A front that cannot be reached loses its generations: they start again at the next call. Once a
    call has received messages, it ends with a bare UNAVAILABLE instead, as if its own connection
    had broken, and the client calls again with the same id.
    """

    def __init__(
        self,
        local: TextToImageServicer,
        directory: Directory,
        peers: Peers,
        proxies: TrustedProxies,
    ) -> None:
        """`proxies` are the peers that may state the addresses of their clients."""
        self._local = local
        self._directory = directory
        self._peers = peers
        self._proxies = proxies

    async def Generate(
        self, request: pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[pb.GenerateResponse, None]:
        """Start a generation here, or join the one of another front."""
        if not request.generation_id:
            request.generation_id = uuid.uuid4().hex  # so that other fronts find it
        holder = await self._find(self._directory.claim, request.generation_id, context)
        has_sent = False
        while holder != self._directory.address:
            call = self._peers[holder].Generate(request, **self._arguments(context))
            try:
                async for response in call:
                    has_sent = True
                    yield response
                await _end(call, context)
                return
            except grpc.aio.AioRpcError as error:
                if not _is_broken(error):
                    await _abort(context, error)
                holder = await self._directory.claim(
                    current_owner(), request.generation_id, gone=holder
                )
                if has_sent:
                    await _abort(context, error)
            finally:
                call.cancel()
        async with aclosing(self._local.Generate(request, context)) as responses:
            async for response in responses:
                yield response

    async def WatchGeneration(
        self, request: pb.WatchGenerationRequest, context: Context
    ) -> AsyncGenerator[pb.WatchGenerationResponse, None]:
        """Join a generation, wherever it is."""
        holder = await self._find(self._directory.find, request.generation_id, context)
        if holder == self._directory.address:
            async with aclosing(self._local.WatchGeneration(request, context)) as responses:
                async for response in responses:
                    yield response
            return
        call = self._peers[holder].WatchGeneration(request, **self._arguments(context))
        try:
            async for response in call:
                yield response
            await _end(call, context)
        except grpc.aio.AioRpcError as error:
            await _abort(context, error)
        finally:
            call.cancel()

    async def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: Context
    ) -> pb.CancelGenerationResponse:
        """Cancel a generation, wherever it is."""
        holder = await self._find(self._directory.find, request.generation_id, context)
        if holder == self._directory.address:
            return await self._local.CancelGeneration(request, context)
        try:
            return await self._peers[holder].CancelGeneration(request, **self._arguments(context))
        except grpc.aio.AioRpcError as error:
            await _abort(context, error)

    async def ListModels(
        self, request: pb.ListModelsRequest, context: Context
    ) -> pb.ListModelsResponse:
        """List the models of this front."""
        return await self._local.ListModels(request, context)

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.GetModelResponse:
        """Describe one model of this front."""
        return await self._local.GetModel(request, context)

    async def _find(
        self, find: Callable[[str, str], Awaitable[str]], generation_id: str, context: Context
    ) -> str:
        """Return the address of the front that serves the call."""
        if any(key == _RELAYED for key, _ in context.invocation_metadata() or ()):
            return self._directory.address
        return await find(current_owner(), generation_id)

    def _arguments(self, context: Context) -> dict[str, Any]:
        """Return the deadline and the metadata of a relayed call, with its client's address."""
        received = tuple(context.invocation_metadata() or ())
        metadata = [(key, value) for key, value in received if key in _PASSED_ON]
        client = find_client(context.peer(), received, self._proxies)
        if client:
            metadata.append((FORWARDED_FOR, client))
        return {"timeout": context.time_remaining(), "metadata": (*metadata, (_RELAYED, "1"))}


def _is_broken(error: grpc.aio.AioRpcError) -> bool:
    """Whether a peer is gone or stopping, and its work may run here."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    reason = _reason_of(error)
    return reason in (None, "STOPPING")


def _reason_of(error: grpc.aio.AioRpcError) -> str | None:
    """Return the reason that a front gave for an error; None if the connection broke."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type] # the stubs know grpc.Call only
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            return str(info.reason)
    return None


async def _end(call: Any, context: Context) -> None:
    context.set_trailing_metadata(
        tuple((key, value) for key, value in await call.trailing_metadata() if key == "x-cache")
    )


async def _abort(context: Context, error: grpc.aio.AioRpcError) -> NoReturn:
    """End the call as the peer ended it."""
    await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))
    raise AssertionError("abort returns")
