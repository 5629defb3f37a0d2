"""Record: the output of one forward of an image, as bytes of its log.

A log is a sequence of records. Each begins with a digest of the rest and of the log's name, so a
torn, damaged or foreign record is recognised. Records hold no code.
"""

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

_HEAD = struct.Struct("<16sQ")
"""Digest, and number of the bytes that follow."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """An output of a denoiser: tensors in tuples and lists."""

    number: int
    """Forwards of the image before this one."""
    step: int
    """Steps of the image that were complete before this forward."""
    signature: str
    """Types and shapes of the forward's arguments."""
    shape: Any
    """The containers, with the positions of the tensors."""
    tensors: Sequence[Tensor]
    """On the host."""

    def encode(self, name: str) -> bytes:
        """Return the bytes for the log of a name."""
        fields = [self.number, self.step, self.signature, self.shape]
        tensors = {str(position): tensor for position, tensor in enumerate(self.tensors)}
        body = json.dumps(fields).encode() + b"\n" + safetensors.torch.save(tensors)
        return _HEAD.pack(_digest(name, body), len(body)) + body


def decode(name: str, log: bytes) -> list[tuple[Record, bytes]]:
    """Return the records from the first forward up to a gap, each with its bytes.

    A process that was believed dead may have added records again; the first of a number counts.
    """
    found: dict[int, tuple[Record, bytes]] = {}
    for body, data in _split(name, log):
        head, _, payload = body.partition(b"\n")
        try:
            number, step, signature, shape = json.loads(head)
            loaded = safetensors.torch.load(payload)
        except (ValueError, TypeError, SafetensorError):
            break
        tensors = [loaded[str(position)] for position in range(len(loaded))]
        found.setdefault(number, (Record(number, step, signature, shape, tensors), data))
    records: list[tuple[Record, bytes]] = []
    while len(records) in found:
        records.append(found[len(records)])
    return records


def flatten(output: Any, tensors: list[Tensor]) -> Any:
    """Add the tensors of an output to `tensors`, and return its shape.

    Raises:
        TypeError: the output has parts that no record can hold.
    """
    match output:
        case Tensor():
            tensors.append(output)
            return len(tensors) - 1
        case list() | tuple() if type(output) in (list, tuple):
            return [type(output).__name__, *(flatten(item, tensors) for item in output)]
        case None:
            return None
    raise TypeError(f"a denoiser returned {type(output).__name__}, which cannot be logged")


def restore(shape: Any, tensors: Sequence[Tensor]) -> Any:
    """Return the output of a shape."""
    if shape is None:
        return None
    if isinstance(shape, int):
        return tensors[shape]
    items = [restore(item, tensors) for item in shape[1:]]
    return tuple(items) if shape[0] == "tuple" else items


def sign(arguments: Mapping[str, Any]) -> str:
    """Describe the types and shapes of a forward's arguments; reads no value of a device."""
    return " ".join(f"{name}={_describe(value)}" for name, value in arguments.items())


def _describe(value: Any) -> str:
    match value:
        case Tensor():
            return f"{value.dtype}{tuple(value.shape)}"
        case list() | tuple():
            return f"[{','.join(map(_describe, value))}]"
        case Mapping():
            return f"{{{sign(value)}}}"
        case bool() | int() | float() | str() | None:
            return repr(value)
    return type(value).__name__


def _split(name: str, log: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the body and all bytes of each record, up to the first bad one."""
    start = 0
    while start + _HEAD.size <= len(log):
        digest, size = _HEAD.unpack_from(log, start)
        end = start + _HEAD.size + size
        body = log[start + _HEAD.size : end]
        if _digest(name, body) != digest:
            return
        yield body, log[start:end]
        start = end


def _digest(name: str, body: bytes) -> bytes:
    return hashlib.blake2b(name.encode() + b"\0" + body, digest_size=16).digest()
