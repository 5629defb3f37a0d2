"""The blocking client."""

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

import grpc

from safelight._client.base_client import BaseClient
from safelight._client.convert import model_from_proto, outcome_from_proto
from safelight._client.generation import Generation
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


class Client(BaseClient):
    """Generates images. Threads may share a client.

    It connects on the first call, and again after a lost connection. Close it
    when done, or use it in a `with` block.

    >>> from safelight import Client
    >>> with Client("localhost:50051") as client:
    ...     image = client.text_to_image("a red circle on a blue background", seed=7)
    >>> image.format
    'PNG'
    """

    _channel: grpc.Channel | None = None

    def text_to_image(
        self, prompt: str, **options: Unpack[TextToImageOptions]
    ) -> "PIL.Image.Image":
        """Generate an image and return it as a Pillow image.

        The options are those of huggingface_hub's `InferenceClient.text_to_image`
        and more: see `TextToImageOptions`. `generate` shows the progress as well.

        >>> image = client.text_to_image("a green square", width=256, height=128, seed=7)
        >>> image.size
        (256, 128)

        Raises:
            ServiceError: the generation failed; its subclasses name the cause.
            ProtocolError: the service broke the contract.
        """
        refuse_unknown_options(options, TextToImageOptions.__optional_keys__)
        with self.generate(prompt, **options) as generation:
            return generation.images()[0].pil

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> Generation:
        """Prepare a generation, which starts when its `with` block is entered.

        The options are those of `text_to_image` and more: see `GenerateOptions`.

        >>> from safelight import Image, Progress
        >>> with client.generate("a red circle on a blue background") as generation:
        ...     for event in generation:
        ...         match event:
        ...             case Progress():
        ...                 share = event.step / event.step_count
        ...             case Image():
        ...                 print(f"{share:.0%}: {event.mime_type}")
        100%: image/png

        Raises:
            TypeError: an option does not exist or has the wrong type.
            ValueError: a number does not fit the contract's type.
        """
        return Generation(self._plan_generation(prompt, options), self._open_stub())

    def watch(self, generation_id: str, **options: Unpack[CallOptions]) -> Generation:
        """Prepare to watch a running or recently ended generation, of any client.

        Leaving the block early stops watching; `cancel(generation_id)` cancels it.

        >>> with client.generate("a red circle", generation_id="circle-1") as generation:
        ...     accepted = next(generation)
        ...     with client.watch("circle-1") as same:
        ...         same.images() == generation.images()
        True
        """
        return self.stream(pb.WatchGenerationRequest(generation_id=generation_id), **options)

    def stream(
        self,
        request: pb.GenerateRequest | pb.WatchGenerationRequest,
        *,
        cancels: bool = False,
        **options: Unpack[CallOptions],
    ) -> Generation:
        """Prepare to send a request of the contract, unchanged, and to read its events.

        A broken stream is resumed if the request has an id and lingers. `Generation.message`
        is the contract's message of each event.

        Args:
            request: The request.
            cancels: Whether leaving the block early cancels a generation that lingers.
            options: Time-out and metadata: see `CallOptions`.

        >>> from safelight.v1.text_to_image_pb2 import GenerateRequest
        >>> with client.stream(GenerateRequest(inputs="a red circle")) as generation:
        ...     kinds = [generation.message.WhichOneof("kind") for event in generation]
        >>> kinds[0], kinds[-2:]
        ('accepted', ['image', 'completed'])
        """
        return Generation(self._plan_stream(request, options, cancels=cancels), self._open_stub())

    def cancel(self, generation_id: str, **options: Unpack[CallOptions]) -> GenerationOutcome:
        """Cancel a generation of any client; return its outcome, new or earlier.

        Raises:
            GenerationNotFoundError: it neither runs nor has recently ended.
            ServiceError: the call failed; its other subclasses name the cause.
        """
        request = pb.CancelGenerationRequest(generation_id=generation_id)
        response = self._call(self._open_stub().CancelGeneration, request, options)
        return outcome_from_proto(response.state)

    def list_models(self, **options: Unpack[CallOptions]) -> list[Model]:
        """Return the models of the service, the default one first.

        >>> [model.name for model in client.list_models()]
        ['shapes']

        Raises:
            ServiceError: the call failed; its subclasses name the cause.
        """
        response = self._call(self._open_stub().ListModels, pb.ListModelsRequest(), options)
        return [model_from_proto(model) for model in response.models]

    def get_model(self, name: str = "", **options: Unpack[CallOptions]) -> Model:
        """Return the model of this name, or the default one.

        >>> client.get_model().state
        <ModelState.READY: 'ready'>

        Raises:
            ModelNotFoundError: the service has no such model.
            ServiceError: the call failed; its other subclasses name the cause.
        """
        response = self._call(self._open_stub().GetModel, pb.GetModelRequest(model=name), options)
        return model_from_proto(response.model)

    def close(self) -> None:
        """Close the connection and cancel all calls in progress."""
        self._closing.set()
        with self._lock:
            if self._channel is not None:
                self._channel.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the client."""
        self.close()

    def _call(self, method: Callable[..., Any], request: object, options: CallOptions) -> Any:
        """Make a call that has one response, with its retries; return the response."""
        retries = self._plan_call(request, options)
        while True:
            try:
                with service_errors():
                    return method(request, **retries.begin_attempt())
            except ServiceError as error:
                if self._closing.is_set() or self._closing.wait(retries.delay_after(error)):
                    raise

    def _open_stub(self) -> TextToImageServiceStub:
        with self._lock:
            if self._channel is None:
                self._channel = self._connection.open_channel()
            return TextToImageServiceStub(self._channel)
