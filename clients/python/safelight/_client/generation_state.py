"""The state that the generations of both clients share."""

import threading
from dataclasses import dataclass

import grpc

from safelight._client.retries import CallArguments, Retries
from safelight.assembler import EventAssembler
from safelight.errors import CallCancelledError, ServiceError
from safelight.events import Accepted, Event
from safelight.v1 import text_to_image_pb2 as pb

_LONGEST_CANCEL_S = 5.0
_SHORTEST_CANCEL_S = 0.5
"""Bounds in seconds of the call that cancels a generation; it may outlast the time-out."""


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """A call that a generation will make.

    Attributes:
        request: The request, the same in each attempt.
        retries: Arguments and number of the attempts.
        closing: Set when the client closes.
        is_cancelled_by_id: Whether leaving early cancels by the id, since the request lingers.
    """

    request: pb.GenerateRequest | pb.WatchGenerationRequest
    retries: Retries
    closing: threading.Event
    is_cancelled_by_id: bool


class GenerationState:
    """The events of a generation so far, and its attempts."""

    def __init__(self, plan: GenerationPlan) -> None:
        request = plan.request
        self._request = request
        self._retries = plan.retries
        self._closing = plan.closing
        self._is_cancelled_by_id = plan.is_cancelled_by_id
        self._assembler = EventAssembler(
            (request.image_count or 1) if isinstance(request, pb.GenerateRequest) else None
        )
        self._header = pb.GenerationEvent()
        self._message: pb.GenerationEvent | None = None
        self._is_completed = False
        self._has_ended = False

    @property
    def accepted(self) -> Accepted | None:
        """The event `Accepted`, with every parameter as used; None before it arrives."""
        return self._assembler.accepted

    @property
    def generation_id(self) -> str | None:
        """Name of the generation; None while it is not known."""
        if self.accepted is not None:
            return self.accepted.generation_id
        return self._request.generation_id or None

    @property
    def message(self) -> pb.GenerationEvent | None:
        """The contract's message of the latest event; of an `Image`, its announcement."""
        return self._message

    @property
    def _must_be_cancelled(self) -> bool:
        """Whether the service would continue after the caller has left."""
        return self._is_cancelled_by_id and not self._has_ended

    def _cancel_request(self) -> pb.CancelGenerationRequest:
        return pb.CancelGenerationRequest(generation_id=self._request.generation_id)

    def _cancel_arguments(self) -> CallArguments:
        left_s = self._retries.left_s
        timeout_s = _LONGEST_CANCEL_S if left_s is None else min(left_s, _LONGEST_CANCEL_S)
        return CallArguments(
            timeout=max(timeout_s, _SHORTEST_CANCEL_S), metadata=self._retries.metadata
        )

    def _take(self, response: pb.GenerateResponse | pb.WatchGenerationResponse) -> Event | None:
        """Take the next message of the stream; return the event that it completes, if any."""
        message = response.event
        event = self._assembler.feed(message)
        self._retries.note_message(is_new=event is not None)
        self._is_completed = message.HasField("completed")
        if message.HasField("image"):
            self._header = message
        if event is not None:
            self._message = self._header if message.HasField("chunk") else message
        return event

    def _finish(self) -> None:
        """Take the end of the stream."""
        self._assembler.finish()
        self._has_ended = True

    def _take_failure(self, error: ServiceError, *, is_left: bool) -> float:
        """Return the seconds until the next attempt.

        Args:
            error: The failure of the last attempt.
            is_left: Whether the caller has cancelled.

        Raises:
            ServiceError: the generation has failed, or the caller has left.
        """
        if is_left or self._closing.is_set():
            raise error
        try:
            delay_s = self._retries.delay_after(error)
        except ServiceError:
            self._has_ended = error.reason is not None  # else the service may still run it
            raise
        self._assembler.restart()
        return delay_s


def cancelled_error() -> CallCancelledError:
    """Return the error of a generation that its caller has cancelled."""
    return CallCancelledError("the generation was cancelled", code=grpc.StatusCode.CANCELLED)
