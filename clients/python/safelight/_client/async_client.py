"""The client for asyncio."""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

import grpc
import grpc.aio

from safelight._client.async_generation import AsyncGeneration
from safelight._client.base_client import BaseClient
from safelight._client.convert import model_from_proto, outcome_from_proto
from safelight.errors import ServiceError, service_errors
from safelight.events import GenerationOutcome
from safelight.models import Model
from safelight.options import (
    CallOptions,
    GenerateOptions,
    TextToImageOptions,
    refuse_unknown_options,
)
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceStub

if TYPE_CHECKING:
    import PIL.Image

    from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceAsyncStub

_T = TypeVar("_T")


class AsyncClient(BaseClient):
    """Generates images in asyncio code, with the methods of `Client`.

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

    _loop: asyncio.AbstractEventLoop | None = None
    _channel: grpc.aio.Channel | None = None

    async def text_to_image(
        self, prompt: str, **options: Unpack[TextToImageOptions]
    ) -> "PIL.Image.Image":
        """Generate an image and return it as a Pillow image.

        The options are those of huggingface_hub's `AsyncInferenceClient.text_to_image`
        and more: see `TextToImageOptions`. `generate` shows the progress as well.

        Raises:
            ServiceError: the generation failed; its subclasses name the cause.
            ProtocolError: the service broke the contract.
        """
        refuse_unknown_options(options, TextToImageOptions.__optional_keys__)
        async with self.generate(prompt, **options) as generation:
            return (await generation.images())[0].pil

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> AsyncGeneration:
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
        return AsyncGeneration(self._plan_generation(prompt, options), self._open_stub)

    def watch(self, generation_id: str, **options: Unpack[CallOptions]) -> AsyncGeneration:
        """Prepare to watch a running or recently ended generation, of any client.

        Leaving the block early stops watching; `cancel(generation_id)` cancels it.
        """
        return self.stream(pb.WatchGenerationRequest(generation_id=generation_id), **options)

    def stream(
        self,
        request: pb.GenerateRequest | pb.WatchGenerationRequest,
        *,
        cancels: bool = False,
        **options: Unpack[CallOptions],
    ) -> AsyncGeneration:
        """Prepare to send a request of the contract, unchanged, and to read its events.

        A broken stream is resumed if the request has an id and lingers. `AsyncGeneration.message`
        is the contract's message of each event.

        Args:
            request: The request.
            cancels: Whether leaving the block early cancels a generation that lingers.
            options: Time-out and metadata: see `CallOptions`.
        """
        return AsyncGeneration(
            self._plan_stream(request, options, cancels=cancels), self._open_stub
        )

    async def cancel(self, generation_id: str, **options: Unpack[CallOptions]) -> GenerationOutcome:
        """Cancel a generation of any client; return its outcome, new or earlier.

        Raises:
            GenerationNotFoundError: it neither runs nor has recently ended.
            ServiceError: the call failed; its other subclasses name the cause.
        """
        request = pb.CancelGenerationRequest(generation_id=generation_id)
        response = await self.call(self._open_stub().CancelGeneration, request, **options)
        return outcome_from_proto(response.state)

    async def list_models(self, **options: Unpack[CallOptions]) -> list[Model]:
        """Return the models of the service, the default one first.

        Raises:
            ServiceError: the call failed; its subclasses name the cause.
        """
        response = await self.call(self._open_stub().ListModels, pb.ListModelsRequest(), **options)
        return [model_from_proto(model) for model in response.models]

    async def get_model(self, name: str = "", **options: Unpack[CallOptions]) -> Model:
        """Return the model of this name, or the default one.

        Raises:
            ModelNotFoundError: the service has no such model.
            ServiceError: the call failed; its other subclasses name the cause.
        """
        request = pb.GetModelRequest(model=name)
        response = await self.call(self._open_stub().GetModel, request, **options)
        return model_from_proto(response.model)

    @property
    def stub(self) -> "TextToImageServiceAsyncStub":
        """The generated stub on this client's connection, for the contract's own messages.

        It sends neither the client's token nor its metadata, and makes each call once.
        """
        return self._open_stub()

    @property
    def channel(self) -> grpc.aio.Channel:
        """This client's connection, for stubs of other services, such as grpc.health.v1.Health."""
        return self._open_channel()

    async def call(
        self, method: Callable[..., Awaitable[_T]], request: object, **options: Unpack[CallOptions]
    ) -> _T:
        """Make a call of a stub's method that has one response; return the response.

        The call sends the client's token and metadata, and has its retries.

        Raises:
            ServiceError: the call failed; its subclasses name the cause.
        """
        retries = self._plan_call(request, options)
        while True:
            try:
                with service_errors():
                    return await method(request, **retries.begin_attempt())
            except ServiceError as error:
                if self._closing.is_set():
                    raise
                await asyncio.sleep(retries.delay_after(error))
                if self._closing.is_set():
                    raise

    async def close(self) -> None:
        """Close the connection and cancel all calls in progress."""
        self._closing.set()
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

    def _open_stub(self) -> "TextToImageServiceAsyncStub":
        return TextToImageServiceStub(self._open_channel())

    def _open_channel(self) -> grpc.aio.Channel:
        # gRPC binds a channel to the loop that runs when it is opened.
        loop = asyncio.get_running_loop()
        if self._channel is None:
            self._loop, self._channel = loop, self._connection.open_async_channel()
        elif self._loop is not loop:
            raise RuntimeError("an AsyncClient belongs to one event loop; make one for each")
        return self._channel
