"""Generation stream: helpers to read its responses from the generated stubs."""

from collections.abc import Iterable

from safelight.v1 import text_to_image_pb2 as pb


def kinds(responses: Iterable[pb.GenerateResponse]) -> list[str]:
    """Return the kind of each event."""
    return [response.event.WhichOneof("kind") or "" for response in responses]


def wait_for(responses: Iterable[pb.GenerateResponse], kind: str) -> pb.GenerationEvent:
    """Read events up to the first of a kind, and return it.

    Raises:
        AssertionError: the stream ends before.
    """
    for response in responses:
        if response.event.WhichOneof("kind") == kind:
            return response.event
    raise AssertionError(f"the stream ended without {kind}")


def image_bytes(
    responses: Iterable[pb.GenerateResponse | pb.WatchGenerationResponse], index: int = 0
) -> bytes:
    """Join the chunks of an image."""
    chunks = (response.event.chunk for response in responses if response.event.HasField("chunk"))
    return b"".join(chunk.data for chunk in chunks if chunk.image_index == index)
