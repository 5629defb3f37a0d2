"""A replay: plays a vector to a client, and notes where the client differs from it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from safelight.testing.expectations import find_differences
from safelight.testing.pictures import image_events
from safelight.testing.statuses import abort
from safelight.testing.vectors import Vector, VectorCall, image_bytes
from safelight.v1 import text_to_image_pb2 as pb

_PATIENCE_S = 5.0

_STREAMS = {"Generate": pb.GenerateResponse, "WatchGeneration": pb.WatchGenerationResponse}
_CANCELLED = VectorCall(
    method="CancelGeneration", script=[{"send": {"state": "GENERATION_STATE_CANCELLED"}}]
)
"""A call that is welcome after the others: a client that gives up may cancel its generation."""

_RESPONSES: dict[str, type[Message]] = {
    "CancelGeneration": pb.CancelGenerationResponse,
    "ListModels": pb.ListModelsResponse,
    "GetModel": pb.GetModelResponse,
}


class Replay:
    """The calls of one vector so far.

    Attributes:
        vector: The vector.
        faults: Deviations of the client, one sentence each.
    """

    def __init__(
        self, vector: Vector, act: Callable[[str, str, int], object], *, repeats: bool
    ) -> None:
        """Prepare a replay.

        Args:
            vector: The vector.
            act: Breaks a connection; takes the arguments of `ConnectionProxy.act`.
            repeats: Whether the calls begin anew after the last.
        """
        self.vector = vector
        self.faults: list[str] = []
        self._act = act
        self._repeats = repeats
        self._begun_count = self._ended_count = 0
        self._ended_at = time.monotonic()
        self._first_request: Message | None = None
        self._is_generated = any(_method(call) == "Generate" for call in vector["calls"])
        self._changed = threading.Condition()

    def wait(self, timeout_s: float) -> list[str]:
        """Wait until all calls have come and ended; return the faults.

        Args:
            timeout_s: Longest wait in seconds; calls that are missing then are faults.
        """
        calls = self.vector["calls"]
        with self._changed:
            self._changed.wait_for(lambda: self._ended_count >= len(calls), timeout_s)
            missing = [
                f"call {number + 1}, {_method(calls[number])}, "
                + ("has not ended" if number < self._begun_count else "has not come")
                for number in range(self._ended_count, len(calls))
            ]
            return [*self.faults, *missing]

    def answer(self, request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
        """Yield the responses to the next call, messages of the method's type."""
        method = type(request).__name__.removesuffix("Request")
        call = self._begin(method, context)
        has_left = threading.Event()
        if not context.add_callback(has_left.set):
            has_left.set()
        try:
            self._check(call, request, context)
            yield from self._play(call, request, context, has_left)
        except Exception as error:
            if type(error) is not Exception:  # as gRPC raises where a call is aborted
                self.faults.append(f"the vector cannot be played: {error!r}")
            raise
        finally:
            with self._changed:
                self._ended_at = time.monotonic()
                self._ended_count += 1
                self._changed.notify_all()

    def answer_once(self, request: Message, context: grpc.ServicerContext) -> Any:
        """Return the only response to the next call."""
        [response] = self.answer(request, context)
        return response

    def _begin(self, method: str, context: grpc.ServicerContext) -> VectorCall:
        calls = self.vector["calls"]
        with self._changed:
            if self._repeats and self._begun_count == len(calls):
                self._begun_count, self._first_request = 0, None
            number = self._begun_count
            if number < len(calls) and _method(calls[number]) == method:
                self._begun_count += 1
                return calls[number]
            if number == len(calls) and method == "CancelGeneration" and self._is_generated:
                return _CANCELLED
            self.faults.append(f"call {number + 1}, {method}, was not expected")
        return abort(context, grpc.StatusCode.FAILED_PRECONDITION, self.faults[-1])

    def _check(self, call: VectorCall, request: Message, context: grpc.ServicerContext) -> None:
        """Note where a call is not the expected one."""
        expected = call.get("expect", {})
        faults = find_differences(expected, request, context)
        waited_ms = 1e3 * (time.monotonic() - self._ended_at)
        if waited_ms < expected.get("after_ms", 0):
            faults.append(f"the call came after {waited_ms:.0f} ms, not {expected['after_ms']}")
        if isinstance(request, pb.GenerateRequest):
            if self._first_request not in (None, request):
                faults.append("the request is not the same as before")
            self._first_request = request
        if faults:
            self.faults += [f"call {self._begun_count}: {fault}" for fault in faults]

    def _play(
        self,
        call: VectorCall,
        request: Message,
        context: grpc.ServicerContext,
        has_left: threading.Event,
    ) -> Iterator[Message]:
        method, count = _method(call), 0
        for step in call["script"]:
            [(kind, value)] = step.items()
            match kind:
                case "send" | "raw" | "image":
                    for response in _responses(method, kind, value, request):
                        count += 1
                        yield response
                case "headers":
                    context.send_initial_metadata(tuple(value.items()))
                case "wait_ms":
                    has_left.wait(value / 1e3)
                case "wait":  # until the client has ended the call
                    if not has_left.wait(_PATIENCE_S):
                        self.faults.append(f"call {self._begun_count}: the client did not end it")
                case "connection":
                    self._act(context.peer(), value, count)
                    has_left.wait(_PATIENCE_S if value != "drain" else 0)
                case "status":
                    _abort(context, value)
                case _:
                    raise ValueError(f"unknown step {kind!r}")


def _method(call: VectorCall) -> str:
    return call.get("method", "Generate")


def _responses(method: str, kind: str, value: Any, request: Message) -> Iterator[Message]:
    if method in _RESPONSES:
        response = _RESPONSES[method]()
        if kind == "raw":
            response.ParseFromString(bytes.fromhex(value))
        yield json_format.ParseDict(value, response) if kind == "send" else response
        return
    for event in _events(kind, value):
        if event.HasField("accepted") and not event.accepted.generation_id:
            event.accepted.generation_id = getattr(request, "generation_id", "") or "generation-1"
        yield _STREAMS[method](event=event)


def _events(kind: str, value: Any) -> Iterator[pb.GenerationEvent]:
    if kind == "raw":
        yield pb.GenerationEvent.FromString(bytes.fromhex(value))
    elif kind == "send":
        yield json_format.ParseDict(value, pb.GenerationEvent())
    else:
        fields = dict(value)
        chunk_bytes = fields.pop("chunk_bytes", 1024 * 1024)
        header = json_format.ParseDict(fields, pb.ImageHeader())
        yield from image_events(header, image_bytes(header, header.size_bytes), chunk_bytes)


def _abort(context: grpc.ServicerContext, status: Mapping[str, Any]) -> None:
    given = status.get("details", ())
    details = bytes.fromhex(given) if isinstance(given, str) else [*map(_detail, given)]
    code = grpc.StatusCode[status["code"]]
    abort(context, code, status.get("message", ""), details, status.get("pushback_ms"))


def _detail(detail: Mapping[str, Any]) -> AnyMessage:
    """Return a detail of a status: a type, or its URL, and its fields, or its bytes."""
    [(name, fields)] = detail.items()
    url = name if "/" in name else f"type.googleapis.com/google.rpc.{name}"
    if isinstance(fields, str):
        return AnyMessage(type_url=url, value=bytes.fromhex(fields))
    message_type = getattr(error_details_pb2, url.rpartition(".")[2])
    return AnyMessage(
        type_url=url, value=json_format.ParseDict(fields, message_type()).SerializeToString()
    )
