"""The fake service: the contract without a model."""

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import ExitStack
from typing import NoReturn

import grpc
from google.protobuf.message import Message

from safelight.testing.connections import ConnectionProxy
from safelight.testing.generations import FakeGeneration
from safelight.testing.model import MODEL, find_violations
from safelight.testing.replay import Replay
from safelight.testing.statuses import refuse
from safelight.testing.vectors import Vector, check_names
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import (
    TextToImageServiceServicer,
    add_TextToImageServiceServicer_to_server,
)

_MAX_CALLS = 64
_KEPT_GENERATIONS = 256


class FakeService:
    """A service for tests of programs that call Safelight: it needs no torch and draws at once.

    It listens on 127.0.0.1 and answers every method as the contract says: events in order, images
    that are PNG files of one colour, violations by field, ids, watchers, cancelling and `linger`.
    Use it in a `with` block:

    >>> from safelight import Client
    >>> from safelight.testing import FakeService
    >>> with FakeService() as target, Client(target) as client:
    ...     client.text_to_image("a red circle", width=128, height=64).size
    (128, 64)

    Vectors script failures. A vector answers the calls whose prompt, generation id or model is its
    name; ListModels has none of these, so `x-vector` in the metadata names it:

    >>> from safelight import OutOfMemoryError
    >>> failure = {
    ...     "code": "RESOURCE_EXHAUSTED",
    ...     "details": [{"ErrorInfo": {"reason": "OUT_OF_MEMORY", "domain": "safelight"}}],
    ... }
    >>> vector = {"name": "a huge poster", "calls": [{"script": [{"status": failure}]}]}
    >>> with FakeService(vectors=[vector]) as target, Client(target) as client:
    ...     try:
    ...         client.text_to_image("a huge poster")
    ...     except OutOfMemoryError as error:
    ...         print(error.reason)
    OUT_OF_MEMORY

    Attributes:
        requests: The requests of all calls so far, as the contract's messages.
        replays: The replay of each vector, by name.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        token: str | None = None,
        step_s: float = 0.0,
        vectors: Sequence[Vector] = (),
        repeats: bool = False,
    ) -> None:
        """Make a service, which starts when its `with` block is entered.

        Args:
            port: Port on 127.0.0.1; 0 for a free one.
            token: Token that calls have to send; None for none.
            step_s: Seconds between two steps of a generation.
            vectors: Scripted exchanges.
            repeats: Whether the calls of a vector begin anew after its last.

        Raises:
            ValueError: two vectors have the same name.
        """
        check_names(vectors)
        self.requests: list[Message] = []
        self._port = port
        self._token = token
        self._step_s = step_s
        self._proxy: ConnectionProxy | None = None
        self.replays = {
            vector["name"]: Replay(vector, self._act, repeats=repeats) for vector in vectors
        }
        self._stack = ExitStack()

    def __enter__(self) -> str:
        """Start the service; return its target, 127.0.0.1:PORT."""
        pool = futures.ThreadPoolExecutor(_MAX_CALLS)
        server = grpc.server(pool, options=(("grpc.so_reuseport", 0),))
        servicer = _Servicer(self.requests, self.replays, self._token, self._step_s)
        add_TextToImageServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port(f"127.0.0.1:{0 if self.replays else self._port}")
        server.start()
        self._stack.callback(pool.shutdown)
        self._stack.callback(lambda: server.stop(None).wait())
        self._stack.callback(servicer.stop)
        if self.replays:
            self._proxy = self._stack.enter_context(ConnectionProxy(self._port, port))
            port = self._proxy.port
        return f"127.0.0.1:{port}"

    def __exit__(self, *_: object) -> None:
        """Stop the service, and end all calls."""
        self._stack.close()

    def _act(self, peer: str, action: str, message_count: int) -> None:
        if self._proxy is not None:
            self._proxy.act(peer, action, message_count)


class _Servicer(TextToImageServiceServicer):
    """The methods of the contract."""

    def __init__(
        self,
        requests: list[Message],
        replays: dict[str, Replay],
        token: str | None,
        step_s: float,
    ) -> None:
        self._requests = requests
        self._replays = replays
        self._token = token
        self._step_s = step_s
        self._generations: dict[str, FakeGeneration] = {}
        self._replays_by_id: dict[str, Replay] = {}
        self._lock = threading.Lock()

    def stop(self) -> None:
        for generation in self._generations.values():
            generation.cancel()

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        replay = self._find_replay(request, context, request.inputs)
        if replay is not None:
            if request.generation_id:
                self._replays_by_id[request.generation_id] = replay
            yield from replay.answer(request, context)
            return
        self._admit(context)
        if request.model not in ("", MODEL.name):
            _refuse_model(context, request.model)
        if violations := find_violations(request):
            message = "; ".join(f"{field}: {text}" for field, text in violations)
            code = grpc.StatusCode.INVALID_ARGUMENT
            refuse(context, code, "INVALID_REQUEST", message, violations)
        for event in _watch(self._start(request, context), context):
            yield pb.GenerateResponse(event=event)

    def WatchGeneration(
        self, request: pb.WatchGenerationRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchGenerationResponse]:
        if replay := self._find_replay(request, context, request.generation_id):
            yield from replay.answer(request, context)
            return
        self._admit(context)
        for event in _watch(self._find(request.generation_id, context), context):
            yield pb.WatchGenerationResponse(event=event)

    def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: grpc.ServicerContext
    ) -> pb.CancelGenerationResponse:
        if replay := self._find_replay(request, context, request.generation_id):
            response: pb.CancelGenerationResponse = replay.answer_once(request, context)
            return response
        self._admit(context)
        state = self._find(request.generation_id, context).cancel()
        return pb.CancelGenerationResponse(state=state)

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        if replay := self._find_replay(request, context, ""):
            response: pb.ListModelsResponse = replay.answer_once(request, context)
            return response
        self._admit(context)
        return pb.ListModelsResponse(models=[MODEL])

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        if replay := self._find_replay(request, context, request.model):
            response: pb.GetModelResponse = replay.answer_once(request, context)
            return response
        self._admit(context)
        if request.model not in ("", MODEL.name):
            _refuse_model(context, request.model)
        return pb.GetModelResponse(model=MODEL)

    def _find_replay(
        self, request: Message, context: grpc.ServicerContext, name: str
    ) -> Replay | None:
        self._requests.append(request)
        name = str(dict(context.invocation_metadata()).get("x-vector", name))
        return self._replays.get(name) or self._replays_by_id.get(name)

    def _admit(self, context: grpc.ServicerContext) -> None:
        if self._token is None:
            return
        sent = dict(context.invocation_metadata()).get("authorization")
        if sent not in (f"Bearer {self._token}", f"Bearer: {self._token}"):
            message = "send a token of this service as authorization: Bearer TOKEN"
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", message)

    def _start(self, request: pb.GenerateRequest, context: grpc.ServicerContext) -> FakeGeneration:
        """Return the generation of a request, a new one unless its id names one of it."""
        with self._lock:
            known = self._generations.get(request.generation_id)
            if known is None or known.state == pb.GENERATION_STATE_CANCELLED:
                known = FakeGeneration(request, self._step_s)
                self._generations[known.generation_id] = known
                known.start()
                for generation_id in [*self._generations][:-_KEPT_GENERATIONS]:
                    self._generations.pop(generation_id).cancel()
        if known.request != request:
            message = f"generation_id {request.generation_id!r} names that of another request"
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, "GENERATION_EXISTS", message)
        return known

    def _find(self, generation_id: str, context: grpc.ServicerContext) -> FakeGeneration:
        known = self._generations.get(generation_id)
        if known is None:
            message = f"generation_id {generation_id!r} names no running or recently ended one"
            refuse(context, grpc.StatusCode.NOT_FOUND, "GENERATION_NOT_FOUND", message)
        return known


def _watch(
    generation: FakeGeneration, context: grpc.ServicerContext
) -> Iterator[pb.GenerationEvent]:
    """Yield the events of a generation until it or the call ends."""
    has_left = threading.Event()

    def leave() -> None:
        has_left.set()
        generation.wake()

    if not context.add_callback(leave):
        return
    yield from generation.watch(has_left)
    if generation.state == pb.GENERATION_STATE_CANCELLED and not has_left.is_set():
        refuse(context, grpc.StatusCode.CANCELLED, "CANCELLED", "the generation was cancelled")


def _refuse_model(context: grpc.ServicerContext, name: str) -> NoReturn:
    message = f"model {name!r} is not served; choose one of: {MODEL.name}"
    refuse(context, grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND", message)
