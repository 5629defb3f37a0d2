"""The client for asyncio."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeAlias, Unpack, cast

import grpc
import grpc.aio

from safelight._connection import CallArguments, Connection, Tls
from safelight._convert import model_from_proto, outcome_from_proto, request_to_proto
from safelight._generation import GenerationState
from safelight.errors import CallCancelledError, ServiceError, service_errors
from safelight.events import Event, GenerationOutcome, Image
from safelight.models import Model
from safelight.options import (
    DEFAULT_LINGER_S,
    CallOptions,
    GenerateOptions,
    Metadata,
    TextToImageOptions,
    refuse_unknown_options,
)
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceStub

if TYPE_CHECKING:
    import PIL.Image

    from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceAsyncStub


_Response: TypeAlias = pb.GenerateResponse | pb.WatchGenerationResponse
_Call: TypeAlias = (
    "grpc.aio.UnaryStreamCall[pb.GenerateRequest, pb.GenerateResponse] | "
    "grpc.aio.UnaryStreamCall[pb.WatchGenerationRequest, pb.WatchGenerationResponse]"
)


class AsyncClient:
    """Generates images in asyncio code; the same as `Client` but for `await`.

    It belongs to the event loop of its first call, and may be made before the
    loop runs. Close it when done, or use it in an `async with` block.

    >>> import asyncio
    >>> from safelight import AsyncClient
    >>> async def main():
    ...     async with AsyncClient("localhost:50051") as client:
    ...         return await client.text_to_image("a red circle on a blue background", seed=7)
    >>> asyncio.run(main()).format
    'PNG'
    """

    def __init__(
        self,
        target: str,
        *,
        token: str | None = None,
        tls: bool | Tls | grpc.ChannelCredentials = False,
        timeout: float | None = None,
        metadata: Metadata = (),
    ) -> None:
        """Make a client of the service at `target`; the arguments are those of `Client`.

        Raises:
            ValueError: the target is a URL, or the token cannot be sent.
        """
        self._connection = Connection(
            target, token=token, tls=tls, timeout=timeout, metadata=metadata
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None

    async def text_to_image(
        self, prompt: str, **options: Unpack[TextToImageOptions]
    ) -> "PIL.Image.Image":
        """Generate an image and return it as a Pillow image.

        The options are those of huggingface_hub's `AsyncInferenceClient.text_to_image`
        and more: see `TextToImageOptions`. `generate` shows the progress as well.

        Raises:
            ServiceError: the generation failed; its subclasses say why.
            ProtocolError: the service broke the contract.
        """
        refuse_unknown_options(options, TextToImageOptions.__optional_keys__)
        async with self.generate(prompt, **options) as generation:
            return (await generation.images())[0].pil

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> "AsyncGeneration":
        """Prepare a generation, which starts when its `async with` block is entered.

        The options are those of `text_to_image` and more: see `GenerateOptions`.

        >>> from safelight import Image
        >>> async def main():
        ...     async with AsyncClient("localhost:50051") as client:
        ...         async with client.generate("a red circle", image_count=2) as generation:
        ...             images = [event async for event in generation if type(event) is Image]
        ...             return [image.image_index for image in images]
        >>> asyncio.run(main())
        [0, 1]

        Raises:
            TypeError: an option does not exist or has the wrong type.
            ValueError: a number does not fit the contract's type.
        """
        arguments = self._connection.generate_arguments(options)
        request = request_to_proto(prompt, options)
        return AsyncGeneration(self, request, arguments, request.linger.ToNanoseconds() / 1e9)

    def watch(self, generation_id: str, **options: Unpack[CallOptions]) -> "AsyncGeneration":
        """Prepare to watch a generation that runs or has ended lately, whoever started it.

        Leaving the block early leaves it; `cancel(generation_id)` would cancel it.
        """
        arguments = self._connection.call_arguments(options)
        request = pb.WatchGenerationRequest(generation_id=generation_id)
        return AsyncGeneration(self, request, arguments, DEFAULT_LINGER_S)

    async def cancel(self, generation_id: str, **options: Unpack[CallOptions]) -> GenerationOutcome:
        """Cancel a generation, whoever started it; return what it ended as, now or before.

        Raises:
            GenerationNotFoundError: it does not run, and has not ended lately.
            ServiceError: the call failed; its other subclasses say why.
        """
        arguments = self._connection.call_arguments(options)
        request = pb.CancelGenerationRequest(generation_id=generation_id)
        with service_errors():
            response = await self._stub().CancelGeneration(request, **arguments)
        return outcome_from_proto(response.state)

    async def list_models(self, **options: Unpack[CallOptions]) -> list[Model]:
        """Return the models that are served, the default one first.

        Raises:
            ServiceError: the call failed; its subclasses say why.
        """
        arguments = self._connection.call_arguments(options)
        with service_errors():
            response = await self._stub().ListModels(pb.ListModelsRequest(), **arguments)
        return [model_from_proto(model) for model in response.models]

    async def get_model(self, name: str = "", **options: Unpack[CallOptions]) -> Model:
        """Return the model of this name, or the default one.

        Raises:
            ModelNotFoundError: the model is not one that is served.
            ServiceError: the call failed; its other subclasses say why.
        """
        arguments = self._connection.call_arguments(options)
        with service_errors():
            response = await self._stub().GetModel(pb.GetModelRequest(model=name), **arguments)
        return model_from_proto(response.model)

    @property
    def stub(self) -> "TextToImageServiceAsyncStub":
        """The generated stub on this client's connection, for the contract's own messages.

        What it is called with is all that is sent: neither the client's token nor its metadata.
        """
        return self._stub()

    @property
    def channel(self) -> grpc.aio.Channel:
        """This client's connection, for stubs of other services, such as grpc.health.v1.Health."""
        return self._open_channel()

    async def close(self) -> None:
        """Close the connection and cancel the calls that run."""
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        await self.close()

    def _stub(self) -> "TextToImageServiceAsyncStub":
        return TextToImageServiceStub(self._open_channel())

    def _open_channel(self) -> grpc.aio.Channel:
        # gRPC binds a channel to the loop that runs when it is opened.
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop, self._channel = loop, self._connection.open_async_channel()
        elif self._loop is not loop:
            raise RuntimeError("an AsyncClient belongs to one event loop; make one for each")
        return self._channel


class AsyncGeneration(GenerationState):
    """One generation: an iterator over its events, within an `async with` block.

    Leaving the block early, by `break`, an error or the task's cancellation,
    cancels the generation; the service stops it within one step. When the
    connection breaks, the generation goes on, and is taken up again.

    Iterating raises ServiceError, whose subclasses say why the generation
    failed, and ProtocolError where the service broke the contract.
    """

    def __init__(
        self,
        client: AsyncClient,
        request: pb.GenerateRequest | pb.WatchGenerationRequest,
        arguments: CallArguments,
        linger_s: float,
    ) -> None:
        """Prepare the call; `AsyncClient.generate` and `AsyncClient.watch` make these."""
        super().__init__(request, arguments, linger_s)
        self._client = client
        self._call: _Call | None = None
        self._is_cancelled = False

    async def images(self) -> list[Image]:
        """Wait for the end and return all images of the generation."""
        async for _ in self:
            pass
        return [*self._assembler.images]

    def cancel(self) -> None:
        """Cancel the generation; iterating then raises CallCancelledError."""
        if self._call is not None:
            self._is_cancelled = self._call.cancel() or self._is_cancelled

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
        if self._must_be_cancelled:
            # By its id, too, or the service would wait for somebody to come back.
            request, arguments = self._cancel_request(), self._cancel_arguments()
            with suppress(grpc.RpcError):  # it has ended, or cannot be reached
                await self._client._stub().CancelGeneration(request, **arguments)

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
                self._raise_if_cancelled_by_caller()
                raise
            except ServiceError as error:
                await asyncio.sleep(self._take_failure(error))
                self._open()
                continue
            if response is grpc.aio.EOF:
                self._finish()
                raise StopAsyncIteration
            event = self._take(cast(_Response, response))
            if event is not None:
                return event

    def _open(self) -> None:
        """Call the service, for the first time or again."""
        stub, arguments = self._client._stub(), self._call_arguments()
        if isinstance(self._request, pb.GenerateRequest):
            self._call = stub.Generate(self._request, **arguments)
        else:
            self._call = stub.WatchGeneration(self._request, **arguments)
        if self._is_cancelled:
            self._call.cancel()

    def _raise_if_cancelled_by_caller(self) -> None:
        """Tell a call that was cancelled from a task that was, as gRPC does not."""
        task = asyncio.current_task()
        if self._is_cancelled and not (task and task.cancelling()):
            raise CallCancelledError(
                "the generation was cancelled", code=grpc.StatusCode.CANCELLED
            ) from None
