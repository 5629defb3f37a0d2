"""The stream of a generation, as a plain gRPC client reads it."""

from collections.abc import Iterable

from safelight.v1 import text_to_image_pb2 as pb


def kinds(responses: Iterable[pb.GenerateResponse]) -> list[str]:
    """Return the name of each event."""
    return [response.event.WhichOneof("kind") or "" for response in responses]


def wait_for(responses: Iterable[pb.GenerateResponse], kind: str) -> pb.GenerationEvent:
    """Read events until one of that kind comes, and return it."""
    for response in responses:
        if response.event.WhichOneof("kind") == kind:
            return response.event
    raise AssertionError(f"the stream ended without {kind}")


def image_bytes(
    responses: Iterable[pb.GenerateResponse | pb.WatchGenerationResponse], index: int = 0
) -> bytes:
    """Return the bytes of an image, its chunks put together."""
    chunks = (response.event.chunk for response in responses if response.event.HasField("chunk"))
    return b"".join(chunk.data for chunk in chunks if chunk.image_index == index)
