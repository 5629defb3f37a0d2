"""Results: the images of a generation, in memory and as bytes.

As bytes: a line with the SHA-256 of the key and the JSON, a space and the JSON; then the bytes
of the images, one after the other. The JSON holds all other fields, and the SHA-256 of each
image, so that any change is detected.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from safelight_service.core.events import Image


class MalformedResultError(ValueError):
    """The bytes differ from those packed under this key."""


@dataclass(frozen=True, slots=True)
class Result:
    """All images of a generation, and the number of their denoising steps in total."""

    images: tuple[Image, ...]
    step_count: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all images."""
        return sum(len(image.data) for image in self.images)


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ImageFacts(_Facts):
    """All fields of an image but its bytes."""

    index: int
    mime_type: str
    width: int
    height: int
    seed: int
    is_flagged: bool
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: NonNegativeInt


class Header(_Facts):
    """All fields of a result but the bytes of its images."""

    images: tuple[ImageFacts, ...]
    step_count: int

    @property
    def size_bytes(self) -> int:
        """Bytes of all images."""
        return sum(image.size_bytes for image in self.images)

    def with_images(self, contents: Iterable[bytes]) -> Result:
        """Return the result with the bytes of each image, in order.

        Raises:
            MalformedResultError: an image differs from the one packed.
        """
        images = []
        for facts, data in zip(self.images, contents, strict=True):
            if hashlib.sha256(data).hexdigest() != facts.sha256:
                raise MalformedResultError("an image is not what was written")
            images.append(Image(**facts.model_dump(exclude={"size_bytes"}), data=data))
        return Result(tuple(images), self.step_count)


def pack(key: str, result: Result) -> bytes:
    """Serialize a result."""
    return b"".join((pack_header(key, result), *(image.data for image in result.images)))


def pack_header(key: str, result: Result) -> bytes:
    """Serialize the line that precedes the bytes of the images."""
    images = []
    for image in result.images:
        facts = dataclasses.asdict(image)
        del facts["is_cacheable"]  # all that are kept are
        facts["size_bytes"] = len(facts.pop("data"))
        images.append(facts)
    text = json.dumps({"images": images, "step_count": result.step_count}).encode()
    return b"%s %s\n" % (_digest(key, text), text)


def unpack_header(key: str, line: bytes) -> Header:
    """Parse the line of a result that was packed under that key.

    Raises:
        MalformedResultError: the line differs from the one packed.
    """
    digest, _, text = line.removesuffix(b"\n").partition(b" ")
    if digest != _digest(key, text):
        raise MalformedResultError("the header is not what was written under this key")
    try:
        return Header.model_validate_json(text)
    except ValidationError as error:
        raise MalformedResultError("the header does not describe a result") from error


def unpack(key: str, value: bytes) -> Result:
    """Parse a result that was packed under that key.

    Raises:
        MalformedResultError: the bytes differ from those packed.
    """
    line, _, data = value.partition(b"\n")
    header = unpack_header(key, line)
    if len(data) != header.size_bytes:
        raise MalformedResultError("there are more or fewer bytes than those of the images")
    ends = list(itertools.accumulate(image.size_bytes for image in header.images))
    return header.with_images(data[begin:end] for begin, end in itertools.pairwise([0, *ends]))


def _digest(key: str, text: bytes) -> bytes:
    return hashlib.sha256(key.encode() + text).hexdigest().encode()
