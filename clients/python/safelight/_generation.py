"""What the generations of both clients share: all but the I/O."""

import time

import grpc

from safelight._connection import CallArguments
from safelight.assembler import EventAssembler
from safelight.errors import ServiceError
from safelight.events import Accepted, Event
from safelight.v1 import text_to_image_pb2 as pb

_CANCEL_TIMEOUT_S = 5.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.05, 1.0


class GenerationState:
    """The call that a generation makes, what has come of it, and how it goes on if it breaks."""

    def __init__(
        self,
        request: pb.GenerateRequest | pb.WatchGenerationRequest,
        arguments: CallArguments,
        linger_s: float,
    ) -> None:
        self._request = request
        self._arguments = arguments
        self._linger_s = linger_s
        self._assembler = EventAssembler(
            (request.image_count or 1) if isinstance(request, pb.GenerateRequest) else None
        )
        self._ends_at: float | None = None
        self._gives_up_at: float | None = None
        self._wait_s = _FIRST_WAIT_S
        self._has_begun = False
        self._has_ended = False

    @property
    def accepted(self) -> Accepted | None:
        """The event of this name, with every parameter settled; None before it came."""
        return self._assembler.accepted

    @property
    def generation_id(self) -> str | None:
        """Name of the generation; None while it is not known."""
        if self.accepted is not None:
            return self.accepted.generation_id
        return self._request.generation_id or None

    @property
    def _must_be_cancelled(self) -> bool:
        """Whether the service would go on with it although nobody wants it any more."""
        is_watched_only = isinstance(self._request, pb.WatchGenerationRequest)
        return self._linger_s > 0 and not self._has_ended and not is_watched_only

    def _cancel_request(self) -> pb.CancelGenerationRequest:
        return pb.CancelGenerationRequest(generation_id=self._request.generation_id)

    def _cancel_arguments(self) -> CallArguments:
        return CallArguments(timeout=_CANCEL_TIMEOUT_S, metadata=self._arguments["metadata"])

    def _call_arguments(self) -> CallArguments:
        """Return what the next call is made with: all calls share one time-out."""
        timeout = self._arguments["timeout"]
        if timeout is None:
            return self._arguments
        if self._ends_at is None:
            self._ends_at = time.monotonic() + timeout
        left_s = max(0.0, self._ends_at - time.monotonic())
        return CallArguments(timeout=left_s, metadata=self._arguments["metadata"])

    def _take(self, response: pb.GenerateResponse | pb.WatchGenerationResponse) -> Event | None:
        """Take the next message of the stream; return the event that it completes, if any."""
        self._has_begun = True
        self._gives_up_at = None
        return self._assembler.feed(response.event)

    def _finish(self) -> None:
        """Take the end of the stream."""
        self._assembler.finish()
        self._has_ended = True

    def _take_failure(self, error: ServiceError) -> float:
        """Return the seconds after which to call again; raise the error if that is no use."""
        is_broken = error.code is grpc.StatusCode.UNAVAILABLE and error.reason is None
        if is_broken and self._has_begun and self._linger_s > 0:
            now = time.monotonic()
            if self._gives_up_at is None:
                self._gives_up_at = now + self._linger_s
                self._wait_s = _FIRST_WAIT_S
            if now + self._wait_s < self._gives_up_at:
                self._assembler.restart()
                wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, _LONGEST_WAIT_S)
                return wait_s
        self._has_ended = error.reason is not None  # else the service may not know of it
        raise error
