"""Vectors: the calls that a client has to make, what each is answered, and the outcome."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from safelight.v1 import text_to_image_pb2 as pb


class VectorCall(TypedDict):
    """A call that a client has to make.

    Attributes:
        method: Name of the method; Generate if absent.
        expect: The call as it has to be; see clients/conformance/README.md.
        script: The steps of the answer.
    """

    method: NotRequired[str]
    expect: NotRequired[Mapping[str, Any]]
    script: Sequence[Mapping[str, Any]]


class Vector(TypedDict):
    """A scripted exchange; clients/conformance/README.md describes the keys.

    Attributes:
        name: Selects the vector: the prompt, the generation id or the model of a call.
        job: The task of the client under test.
        calls: Its calls, in order.
        outcome: The lines that it has to print.
    """

    name: str
    job: NotRequired[Mapping[str, Any]]
    calls: Sequence[VectorCall]
    outcome: NotRequired[Sequence[Mapping[str, Any]]]


def load_vectors(folder: Path) -> list[Vector]:
    """Return the vectors of all `*.json` in a folder, each a list of vectors.

    Raises:
        ValueError: two have the same name.
    """
    vectors: list[Vector] = [
        vector
        for path in sorted(folder.glob("*.json"))
        for vector in json.loads(path.read_text("utf-8"))
    ]
    check_names(vectors)
    return vectors


def check_names(vectors: Iterable[Vector]) -> None:
    """Refuse vectors of the same name.

    Raises:
        ValueError: two have the same name.
    """
    seen: set[str] = set()
    for vector in vectors:
        if vector["name"] in seen:
            raise ValueError(f"two vectors are named {vector['name']!r}")
        seen.add(vector["name"])


def image_bytes(header: pb.ImageHeader, size_bytes: int) -> bytes:
    """Return the bytes of a vector's image: 0, 1, 2 … 255, 0, 1 … from `image_index` on."""
    first = header.image_index % 256
    return (bytes(range(256)) * (size_bytes // 256 + 2))[first : first + size_bytes]
