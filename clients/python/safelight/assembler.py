"""The assembler: checks the messages of a stream, and puts images together from chunks."""

import hashlib

from safelight import _convert as convert
from safelight.errors import IntegrityError, ProtocolError
from safelight.events import Accepted, Completed, Event, Image, Preview, Progress
from safelight.v1 import text_to_image_pb2 as pb


class EventAssembler:
    """Turns the messages of one generation's stream into events. It does no I/O.

    `Client` and `AsyncClient` have one inside. Use it directly to read the stream of a
    stub of your own, of `Generate` and `WatchGeneration` alike:

    >>> import grpc
    >>> from safelight import EventAssembler
    >>> from safelight.v1.text_to_image_pb2 import GenerateRequest
    >>> from safelight.v1.text_to_image_pb2_grpc import TextToImageServiceStub
    >>> assembler = EventAssembler()
    >>> with grpc.insecure_channel("localhost:50051") as channel:
    ...     stub = TextToImageServiceStub(channel)
    ...     for response in stub.Generate(GenerateRequest(inputs="a red circle")):
    ...         event = assembler.feed(response.event)
    >>> assembler.finish()
    >>> [image.mime_type for image in assembler.images]
    ['image/png']

    It checks that images come in order, that their chunks leave no gap, that each has the
    announced size and SHA-256, and that the generation ends with all of its images.

    Attributes:
        accepted: The event of this name; None before it came.
        images: The images that are complete, in their order.
    """

    def __init__(self, image_count: int | None = None) -> None:
        """Make an assembler of one generation.

        Args:
            image_count: Number of images that were asked for; None: as many as `accepted` says.
        """
        self.accepted: Accepted | None = None
        self.images: list[Image] = []
        self._told_images: dict[int, str] = {}
        self._returned_steps: dict[tuple[type[Event], int], int] = {}
        self._image_count = image_count
        self._header: pb.ImageHeader | None = None
        self._data = bytearray()
        self._is_completed = False

    def feed(self, message: pb.GenerationEvent) -> Event | None:
        """Take the next message and return the event that it completes.

        Returns:
            None for a part of an image, for an event that was returned before the stream
            broke, and for an event of a newer contract.

        Raises:
            ProtocolError: the message cannot follow those before it.
            IntegrityError: an image's bytes are not the announced ones.
        """
        if self._is_completed:
            raise ProtocolError("the service went on after the generation had ended")
        match message.WhichOneof("kind"):
            case "accepted":
                return self._accept(convert.accepted_from_proto(message.accepted))
            case "queued":
                return convert.queued_from_proto(message.queued)
            case "model_loading":
                return convert.model_loading_from_proto(message.model_loading)
            case "progress":
                return self._return_once(convert.progress_from_proto(message.progress))
            case "preview":
                return self._return_once(convert.preview_from_proto(message.preview))
            case "image":
                self._begin_image(message.image)
                return None
            case "chunk":
                return self._extend_image(message.chunk)
            case "completed":
                return self._complete(message.completed)
            case None:  # an event of a newer contract
                return None

    def restart(self) -> None:
        """Expect the stream from its beginning, since it broke.

        The service repeats the latest progress, the latest preview and all images; `feed`
        returns none of them a second time.
        """
        self._told_images |= {image.image_index: image.sha256 for image in self.images}
        self.images = []
        self._header = None

    def finish(self) -> None:
        """Take the end of a stream that ended with the status OK.

        Raises:
            ProtocolError: the generation had not ended.
        """
        if not self._is_completed:
            raise ProtocolError("the service closed the stream before the generation had ended")

    def _accept(self, accepted: Accepted) -> Accepted | None:
        is_new = self.accepted is None
        self.accepted = accepted
        if self._image_count is None:
            self._image_count = accepted.image_count
        return accepted if is_new else None

    def _return_once(self, event: Progress | Preview) -> Event | None:
        """Return the event, or None if the last one of its kind had the same step."""
        subject = type(event), event.image_index
        if self._returned_steps.get(subject) == event.step:
            return None
        self._returned_steps[subject] = event.step
        return event

    def _begin_image(self, header: pb.ImageHeader) -> None:
        if self._header is not None or header.image_index != len(self.images):
            raise ProtocolError(f"image {header.image_index} was announced out of turn")
        if header.size_bytes < 1:
            raise ProtocolError(f"image {header.image_index} was announced without bytes")
        self._header = header
        self._data = bytearray()

    def _extend_image(self, chunk: pb.ImageChunk) -> Image | None:
        header = self._header
        if header is None or chunk.image_index != header.image_index:
            raise ProtocolError(f"a chunk of image {chunk.image_index} came out of turn")
        if chunk.offset_bytes != len(self._data):
            raise ProtocolError(
                f"a chunk of image {header.image_index} starts at byte {chunk.offset_bytes} "
                f"where byte {len(self._data)} was due"
            )
        self._data += chunk.data
        if len(self._data) < header.size_bytes:
            return None
        self._header = None
        return self._complete_image(header)

    def _complete_image(self, header: pb.ImageHeader) -> Image | None:
        data = bytes(self._data)
        if len(data) != header.size_bytes:
            raise IntegrityError(
                f"image {header.image_index} has {len(data)} bytes where {header.size_bytes} "
                "were announced"
            )
        if hashlib.sha256(data).hexdigest() != header.sha256:
            raise IntegrityError(
                f"the SHA-256 of image {header.image_index} is not the announced one"
            )
        image = Image.from_header(header, data)
        self.images.append(image)
        told = self._told_images.get(image.image_index)
        if told is None:
            return image
        if told != image.sha256:
            raise IntegrityError(
                f"image {image.image_index} is not the one that came before the connection broke"
            )
        return None

    def _complete(self, message: pb.GenerationCompleted) -> Completed:
        if self._image_count is None:
            raise ProtocolError("the generation ended before it was accepted")
        if len(self.images) != self._image_count:
            raise ProtocolError(
                f"the generation ended with {len(self.images)} images "
                f"where {self._image_count} were asked for"
            )
        self._is_completed = True
        return convert.completed_from_proto(message)
