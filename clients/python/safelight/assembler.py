"""The assembler: a generation's stream as events, with whole images."""

import hashlib
import math

from safelight._client import convert
from safelight.errors import IntegrityError, ProtocolError
from safelight.events import (
    Accepted,
    Completed,
    Event,
    Image,
    Preview,
    Progress,
    Queued,
    Restarted,
)
from safelight.v1 import text_to_image_pb2 as pb


class EventAssembler:
    """Turns the messages of one generation's stream into events. It does no I/O.

    `Client` and `AsyncClient` use it. Use it directly to read the stream of another stub,
    of `Generate` or `WatchGeneration`:

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
        accepted: The event `Accepted`; None before it arrives.
        images: The complete images, in order of `image_index`.
    """

    def __init__(self, image_count: int | None = None) -> None:
        """Make an assembler of one generation.

        Args:
            image_count: Number of images in the request; None for the number in `accepted`.
        """
        self.accepted: Accepted | None = None
        self.images: list[Image] = []
        self._returned_images: dict[int, str] = {}
        self._latest: dict[tuple[type[Event], object], float] = {}
        self._image_count = image_count
        self._position: int | None = None
        self._is_repeating = False
        self._header: pb.ImageHeader | None = None
        self._data = bytearray()
        self._is_completed = False

    def feed(self, message: pb.GenerationEvent) -> Event | None:
        """Take the next message and return the event that it completes.

        Returns:
            None for a part of an image, for an event that an earlier stream has brought,
            and for an event of a newer contract.

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
                return self._queue(convert.queued_from_proto(message.queued))
            case "model_loading":
                loading = convert.model_loading_from_proto(message.model_loading)
                return self._advance(loading, loading.model, loading.elapsed_s)
            case "restarted":
                return self._go_back(convert.restarted_from_proto(message.restarted))
            case "progress":
                progress = convert.progress_from_proto(message.progress)
                return self._advance(progress, progress.image_index, progress.step)
            case "preview":
                preview = convert.preview_from_proto(message.preview)
                return self._advance(preview, preview.image_index, preview.step)
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
        """Expect another stream of the same generation, from its beginning.

        Call this when a stream has broken and the same request was sent again. The service
        repeats the present state and all images, or runs the generation again if it has lost
        it. `feed` returns each event once, and the steps of an image only rise until `Restarted`.
        """
        self._returned_images |= {image.image_index: image.sha256 for image in self.images}
        self.images = []
        self._header = None
        self._is_repeating = True

    def finish(self) -> None:
        """Note that the stream has ended with the status OK.

        Raises:
            ProtocolError: the generation had not ended.
        """
        if not self._is_completed:
            raise ProtocolError("the service closed the stream before the generation had ended")

    def _accept(self, accepted: Accepted) -> Accepted | None:
        is_new = accepted != self.accepted  # another seed, if the service ran it again
        self.accepted = accepted
        if self._image_count is None:
            self._image_count = accepted.image_count
        return accepted if is_new else None

    def _queue(self, queued: Queued) -> Queued | None:
        """Return the event, unless it repeats the position from an earlier stream."""
        is_repeated = self._is_repeating and queued.position == self._position
        self._position, self._is_repeating = queued.position, False
        return None if is_repeated else queued

    def _advance(self, event: Event, subject: object, value: float) -> Event | None:
        """Return the event if its value exceeds those of all earlier events of the subject."""
        key = type(event), subject
        if value <= self._latest.get(key, -math.inf):
            return None
        self._latest[key] = value
        return event

    def _go_back(self, restarted: Restarted) -> Restarted | None:
        """Expect steps and previews anew, unless the event repeats an earlier one."""
        if self._advance(restarted, None, restarted.restart_count) is None:
            return None
        for kind, subject in [*self._latest]:
            if kind in (Progress, Preview):
                del self._latest[kind, subject]
        return restarted

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
        returned = self._returned_images.get(image.image_index)
        if returned is None:
            return image
        if returned != image.sha256:
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
