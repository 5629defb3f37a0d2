"""What the generations of both clients share: all but the I/O."""

from safelight._assembler import EventAssembler
from safelight._connection import CallArguments
from safelight.events import Accepted
from safelight.v1 import text_to_image_pb2 as pb


class GenerationState:
    """The call that a generation makes and what has come of it."""

    def __init__(self, request: pb.GenerateRequest, arguments: CallArguments) -> None:
        self._request = request
        self._arguments = arguments
        self._assembler = EventAssembler(request.image_count or 1)

    @property
    def accepted(self) -> Accepted | None:
        """The event of this name, with every parameter settled; None before it came."""
        return self._assembler.accepted

    @property
    def generation_id(self) -> str | None:
        """Name of the generation; None before `accepted` came."""
        return self.accepted.generation_id if self.accepted else None
