"""The client for ordinary, blocking code."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack

import grpc

from safelight._connection import CallArguments, Connection, Tls
from safelight._convert import model_from_proto, outcome_from_proto, request_to_proto
from safelight._generation import GenerationState
from safelight.errors import ServiceError, service_errors
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


class Client:
    """Generates images; safe to share between threads.

    It connects on the first call, and again after a lost connection. Close it
    when done, or use it in a `with` block.

    >>> from safelight import Client
    >>> with Client("localhost:50051") as client:
    ...     image = client.text_to_image("a red circle on a blue background", seed=7)
    >>> image.format
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
        """Make a client of the service at `target`.

        Args:
            target: Any gRPC target, such as `localhost:50051`, `unix:/run/safelight.sock`
                or `dns:///safelight.example:50051`.
            token: Sent with each call as `authorization: Bearer TOKEN`. It is sent
                over plaintext too, where anyone on the way can read it: turn `tls`
                on unless the network itself is safe (loopback, a service mesh).
            tls: Whether to encrypt: False for plaintext, True with the authorities
                that gRPC trusts, a `Tls` with certificates of one's own, or gRPC's
                own credentials.
            timeout: Seconds that a call may take unless it says otherwise.
            metadata: Sent with each call.

        Raises:
            ValueError: the target is a URL, or the token cannot be sent.
        """
        self._connection = Connection(
            target, token=token, tls=tls, timeout=timeout, metadata=metadata
        )
        self._channel = self._connection.open_channel()
        self._stub = TextToImageServiceStub(self._channel)

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
            ServiceError: the generation failed; its subclasses say why.
            ProtocolError: the service broke the contract.
        """
        refuse_unknown_options(options, TextToImageOptions.__optional_keys__)
        with self.generate(prompt, **options) as generation:
            return generation.images()[0].pil

    def generate(self, prompt: str, **options: Unpack[GenerateOptions]) -> "Generation":
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
        arguments = self._connection.generate_arguments(options)
        request = request_to_proto(prompt, options)
        return Generation(self._stub, request, arguments, request.linger.ToNanoseconds() / 1e9)

    def watch(self, generation_id: str, **options: Unpack[CallOptions]) -> "Generation":
        """Prepare to watch a generation that runs or has ended lately, whoever started it.

        Leaving the block early leaves it; `cancel(generation_id)` would cancel it.

        >>> with client.generate("a red circle", generation_id="circle-1") as generation:
        ...     accepted = next(generation)
        ...     with client.watch("circle-1") as same:
        ...         same.images() == generation.images()
        True
        """
        arguments = self._connection.call_arguments(options)
        request = pb.WatchGenerationRequest(generation_id=generation_id)
        return Generation(self._stub, request, arguments, DEFAULT_LINGER_S)

    def cancel(self, generation_id: str, **options: Unpack[CallOptions]) -> GenerationOutcome:
        """Cancel a generation, whoever started it; return what it ended as, now or before.

        Raises:
            GenerationNotFoundError: it does not run, and has not ended lately.
            ServiceError: the call failed; its other subclasses say why.
        """
        arguments = self._connection.call_arguments(options)
        request = pb.CancelGenerationRequest(generation_id=generation_id)
        with service_errors():
            return outcome_from_proto(self._stub.CancelGeneration(request, **arguments).state)

    def list_models(self, **options: Unpack[CallOptions]) -> list[Model]:
        """Return the models that are served, the default one first.

        >>> [model.name for model in client.list_models()]
        ['shapes']

        Raises:
            ServiceError: the call failed; its subclasses say why.
        """
        arguments = self._connection.call_arguments(options)
        with service_errors():
            response = self._stub.ListModels(pb.ListModelsRequest(), **arguments)
        return [model_from_proto(model) for model in response.models]

    def get_model(self, name: str = "", **options: Unpack[CallOptions]) -> Model:
        """Return the model of this name, or the default one.

        >>> client.get_model().state
        <ModelState.READY: 'ready'>

        Raises:
            ModelNotFoundError: the model is not one that is served.
            ServiceError: the call failed; its other subclasses say why.
        """
        arguments = self._connection.call_arguments(options)
        with service_errors():
            response = self._stub.GetModel(pb.GetModelRequest(model=name), **arguments)
        return model_from_proto(response.model)

    def close(self) -> None:
        """Close the connection and cancel the calls that run."""
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


class Generation(GenerationState):
    """One generation: an iterator over its events, within a `with` block.

    Leaving the block early, by `break`, an error or Ctrl-C, cancels the
    generation; the service stops it within one step. When the connection breaks,
    the generation goes on, and is taken up again.

    Iterating raises ServiceError, whose subclasses say why the generation
    failed, and ProtocolError where the service broke the contract.
    """

    def __init__(
        self,
        stub: TextToImageServiceStub,
        request: pb.GenerateRequest | pb.WatchGenerationRequest,
        arguments: CallArguments,
        linger_s: float,
    ) -> None:
        """Prepare the call; `Client.generate` and `Client.watch` make these."""
        super().__init__(request, arguments, linger_s)
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
        if self._must_be_cancelled:
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
                self._is_left.wait(self._take_failure(error))
                self._open()
                continue
            if response is None:
                self._finish()
                raise StopIteration
            event = self._take(response)
            if event is not None:
                return event

    def _open(self) -> None:
        """Call the service, for the first time or again."""
        arguments = self._call_arguments()
        call = (
            self._stub.Generate(self._request, **arguments)
            if isinstance(self._request, pb.GenerateRequest)
            else self._stub.WatchGeneration(self._request, **arguments)
        )
        self._call, self._responses = call, iter(call)
        if self._is_left.is_set():
            call.cancel()
