"""The methods of the fake service."""

import threading
from collections.abc import Iterator, Mapping
from typing import NoReturn

import grpc
from google.protobuf.message import Message

from safelight.testing.generations import FakeGeneration
from safelight.testing.model import MODEL, find_violations
from safelight.testing.replay import Replay
from safelight.testing.statuses import refuse
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceServicer

_KEPT_GENERATIONS = 256


class FakeServicer(TextToImageServiceServicer):
    """The methods of the contract."""

    def __init__(
        self,
        requests: list[Message],
        replays: Mapping[str, Replay],
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
        """End all generations."""
        for generation in self._generations.values():
            generation.stop()

    def Generate(
        self, request: pb.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.GenerateResponse]:
        """Play a vector, or draw."""
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
        """Play a vector, or send the events of a known generation."""
        if replay := self._find_replay(request, context, request.generation_id):
            yield from replay.answer(request, context)
            return
        self._admit(context)
        for event in _watch(self._find(request.generation_id, context), context):
            yield pb.WatchGenerationResponse(event=event)

    def CancelGeneration(
        self, request: pb.CancelGenerationRequest, context: grpc.ServicerContext
    ) -> pb.CancelGenerationResponse:
        """Play a vector, or cancel a known generation."""
        if replay := self._find_replay(request, context, request.generation_id):
            response: pb.CancelGenerationResponse = replay.answer_once(request, context)
            return response
        self._admit(context)
        state = self._find(request.generation_id, context).cancel()
        return pb.CancelGenerationResponse(state=state)

    def ListModels(
        self, request: pb.ListModelsRequest, context: grpc.ServicerContext
    ) -> pb.ListModelsResponse:
        """Play a vector, or list the only model."""
        if replay := self._find_replay(request, context, ""):
            response: pb.ListModelsResponse = replay.answer_once(request, context)
            return response
        self._admit(context)
        return pb.ListModelsResponse(models=[MODEL])

    def GetModel(
        self, request: pb.GetModelRequest, context: grpc.ServicerContext
    ) -> pb.GetModelResponse:
        """Play a vector, or describe the only model."""
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
                    self._generations.pop(generation_id).stop()
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
