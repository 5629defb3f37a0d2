"""Results: the images of a generation, in memory and as bytes.

As bytes: a line with the SHA-256 of the key and the JSON, a space and the JSON; then the bytes
of the images, one after the other. The JSON holds all other fields, and the SHA-256 of each
image, so that any change is detected.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

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


class _ImageFacts(_Facts):
    index: int
    mime_type: str
    width: int
    height: int
    seed: int
    is_flagged: bool
    sha256: str
    size_bytes: NonNegativeInt


class _Header(_Facts):
    images: tuple[_ImageFacts, ...]
    step_count: int


def pack(key: str, result: Result) -> bytes:
    """Serialize a result."""
    return b"".join((pack_header(key, result), *(image.data for image in result.images)))


def pack_header(key: str, result: Result) -> bytes:
    """Serialize the line that precedes the bytes of the images."""
    images = []
    for image in result.images:
        facts = dataclasses.asdict(image)
        facts["size_bytes"] = len(facts.pop("data"))
        images.append(facts)
    text = json.dumps({"images": images, "step_count": result.step_count}).encode()
    return b"%s %s\n" % (_digest(key, text), text)


def unpack(key: str, value: bytes) -> Result:
    """Parse a result that was packed under that key.

    Raises:
        MalformedResultError: the bytes differ from those packed.
    """
    line, _, data = value.partition(b"\n")
    digest, _, text = line.partition(b" ")
    if digest != _digest(key, text):
        raise MalformedResultError("the header is not what was written under this key")
    try:
        header = _Header.model_validate_json(text)
    except ValidationError as error:
        raise MalformedResultError("the header does not describe a result") from error
    images = []
    begin = 0
    for facts in header.images:
        end = begin + facts.size_bytes
        image = Image(**facts.model_dump(exclude={"size_bytes"}), data=data[begin:end])
        if hashlib.sha256(image.data).hexdigest() != image.sha256:
            raise MalformedResultError("an image is not what was written")
        images.append(image)
        begin = end
    if begin != len(data):
        raise MalformedResultError("there are more bytes than those of the images")
    return Result(tuple(images), header.step_count)


def _digest(key: str, text: bytes) -> bytes:
    return hashlib.sha256(key.encode() + text).hexdigest().encode()
