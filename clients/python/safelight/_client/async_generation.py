"""A generation of the asyncio client."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, cast

import grpc
import grpc.aio

from safelight._client.generation_state import GenerationPlan, GenerationState, cancelled_error
from safelight.errors import ServiceError, service_errors
from safelight.events import Event, Image
from safelight.v1 import text_to_image_pb2 as pb

if TYPE_CHECKING:
    from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceAsyncStub

_Response: TypeAlias = pb.GenerateResponse | pb.WatchGenerationResponse
_Call: TypeAlias = (
    "grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse] | "
    "grpc.aio.UnaryStreamCall[pb.WatchGenerationRequest, pb.WatchGenerationResponse]"
)


class AsyncGeneration(GenerationState):
    """One generation: an iterator over its events, within an `async with` block.

    Leaving the block early, by `break`, an error or the task's cancellation, cancels the
    generation. The service stops it within one step. A broken connection does not: the
    client resumes the generation, and returns each event once.

    Iterating raises ServiceError, whose subclasses name the cause, and ProtocolError where
    the service broke the contract.
    """

    def __init__(
        self, plan: GenerationPlan, open_stub: "Callable[[], TextToImageServiceAsyncStub]"
    ) -> None:
        """Prepare the call; `AsyncClient.generate` and `AsyncClient.watch` make generations."""
        super().__init__(plan)
        self._open_stub = open_stub
        self._call: _Call | None = None
        self._is_left = asyncio.Event()

    async def images(self) -> list[Image]:
        """Wait for the end and return all images of the generation."""
        async for _ in self:
            pass
        return [*self._assembler.images]

    def cancel(self) -> None:
        """Cancel the generation; iterating then raises CallCancelledError."""
        self._is_left.set()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        """Start the generation."""
        if self._call is not None:
            raise RuntimeError("a generation runs once; call generate() again")
        self._open()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the generation unless it has ended."""
        self.cancel()
        if self._must_be_cancelled and not self._closing.is_set():
            request, arguments = self._cancel_request(), self._cancel_arguments()
            with suppress(grpc.RpcError):  # it has ended, or cannot be reached
                await self._open_stub().CancelGeneration(request, **arguments)

    def __aiter__(self) -> Self:
        """Return the generation itself, an iterator."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event."""
        if self._call is None:
            raise RuntimeError("a generation runs in an `async with` block; enter it first")
        while True:
            try:
                with service_errors():
                    response = await self._call.read()
            except asyncio.CancelledError:
                self._raise_if_left()
                raise
            except ServiceError as error:
                if not self._is_completed:  # else nothing is missing
                    await self._wait(self._take_failure(error, is_left=self._is_left.is_set()))
                    self._open()
                    continue
                response = grpc.aio.EOF
            if response is grpc.aio.EOF:
                self._finish()
                raise StopAsyncIteration
            event = self._take(cast(_Response, response))
            if event is not None:
                return event

    async def _wait(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_left.wait(), delay_s)
        self._raise_if_left()

    def _open(self) -> None:
        """Make the next attempt."""
        stub, arguments = self._open_stub(), self._retries.begin_attempt()
        if isinstance(self._request, pb.GenerateRequest):
            self._call = stub.Generate(self._request, **arguments)
        else:
            self._call = stub.WatchGeneration(self._request, **arguments)
        if self._is_left.is_set():
            self._call.cancel()

    def _raise_if_left(self) -> None:
        """Raise for a cancelled call, but not for a cancelled task: gRPC raises the same for both.

        Raises:
            CallCancelledError: the generation was cancelled, or the client closed.
        """
        task = asyncio.current_task()
        is_left = self._is_left.is_set() or self._closing.is_set()
        if is_left and not (task and task.cancelling()):
            raise cancelled_error() from None
