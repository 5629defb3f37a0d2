"""A generation of the blocking client."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

import grpc

from safelight._client.generation_state import GenerationPlan, GenerationState, cancelled_error
from safelight.errors import ServiceError, service_errors
from safelight.events import Event, Image
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceStub


class Generation(GenerationState):
    """One generation: an iterator over its events, within a `with` block.

    Leaving the block early, by `break`, an error or Ctrl-C, cancels the generation. The
    service stops it within one step. A broken connection does not: the client resumes the
    generation, and returns each event once.

    Iterating raises ServiceError, whose subclasses name the cause, and ProtocolError where
    the service broke the contract.
    """

    def __init__(self, plan: GenerationPlan, stub: TextToImageServiceStub) -> None:
        """Prepare the call; `Client.generate` and `Client.watch` make generations."""
        super().__init__(plan)
        self._stub = stub
        self._call: grpc.Call | None = None
        self._responses: Iterator[pb.GenerateResponse | pb.WatchGenerationResponse] = iter(())
        self._is_left = threading.Event()

    def images(self) -> list[Image]:
        """Wait for the end and return all images of the generation.

        >>> with client.generate("a blue star on a white background", image_count=2) as generation:
        ...     len(generation.images())
        2
        """
        for _ in self:
            pass
        return [*self._assembler.images]

    def cancel(self) -> None:
        """Cancel the generation, from any thread; iterating then raises CallCancelledError."""
        self._is_left.set()
        if self._call is None:
            return
        self._call.cancel()
        if self._must_be_cancelled and not self._closing.is_set():
            request, arguments = self._cancel_request(), self._cancel_arguments()
            with suppress(grpc.RpcError):  # it has ended, or cannot be reached
                self._stub.CancelGeneration(request, **arguments)

    def __enter__(self) -> Self:
        """Start the generation."""
        if self._call is not None:
            raise RuntimeError("a generation runs once; call generate() again")
        self._open()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the generation unless it has ended."""
        self.cancel()

    def __iter__(self) -> Self:
        """Return the generation itself, an iterator."""
        return self

    def __next__(self) -> Event:
        """Wait for the next event."""
        if self._call is None:
            raise RuntimeError("a generation runs in a `with` block; enter it first")
        while True:
            try:
                with service_errors():
                    response = next(self._responses, None)
            except ServiceError as error:
                if not self._is_completed:  # else nothing is missing
                    self._wait(self._take_failure(error, is_left=self._is_left.is_set()))
                    self._open()
                    continue
                response = None
            if response is None:
                self._finish()
                raise StopIteration
            event = self._take(response)
            if event is not None:
                return event

    def _wait(self, delay_s: float) -> None:
        self._is_left.wait(delay_s)
        if self._is_left.is_set() or self._closing.is_set():
            raise cancelled_error()

    def _open(self) -> None:
        """Make the next attempt."""
        arguments = self._retries.begin_attempt()
        call = (
            self._stub.Generate(self._request, **arguments)
            if isinstance(self._request, pb.GenerateRequest)
            else self._stub.WatchGeneration(self._request, **arguments)
        )
        self._call, self._responses = call, iter(call)
        if self._is_left.is_set():
            call.cancel()
