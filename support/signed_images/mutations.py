"""Mutations: files that were damaged on purpose, to break parsers."""

import random
import zlib
from collections.abc import Callable, Sequence

_PNG = b"\x89PNG\r\n\x1a\n"
_EXTREME_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)


def mutate(files: Sequence[bytes], seed: int) -> bytes:
    """Return one of the files with one to four mutations; equal seeds give equal files."""
    source = random.Random(seed)
    data = bytearray(source.choice(files))
    for _ in range(source.randint(1, 4)):
        source.choice(_MUTATIONS)(data, files, source)
    if data.startswith(_PNG) and source.random() < 0.5:
        _renew_checksums(data)  # readers would look no further
    return bytes(data)


def _renew_checksums(data: bytearray) -> None:
    """Renew the checksums of a PNG's chunks."""
    at = len(_PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4


def _flip_bits(data: bytearray, files: Sequence[bytes], source: random.Random) -> None:
    for _ in range(source.randint(1, 16)):
        if data:
            data[source.randrange(len(data))] ^= 1 << source.randrange(8)


def _write_length(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    """Write an extreme number, as a length or count of any width and byte order."""
    width = source.choice((1, 2, 4, 8))
    number = source.choice(_EXTREME_LENGTHS) % 256**width
    at = source.randrange(len(data) + 1)
    data[at : at + width] = number.to_bytes(width, source.choice(("big", "little")))


def _truncate(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    del data[source.randrange(len(data) + 1) :]


def _delete(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    begin = source.randrange(len(data) + 1)
    del data[begin : begin + source.randint(1, 64)]


def _repeat(data: bytearray, _: Sequence[bytes], source: random.Random) -> None:
    begin = source.randrange(len(data) + 1)
    data[begin:begin] = data[begin : begin + source.randint(1, 512)] * source.randint(1, 64)


def _splice(data: bytearray, files: Sequence[bytes], source: random.Random) -> None:
    """Insert a part of a file, possibly of another format."""
    other = source.choice(files)
    begin = source.randrange(len(other))
    at = source.randrange(len(data) + 1)
    data[at:at] = other[begin : begin + source.randint(1, 2048)]


_MUTATIONS: tuple[Callable[[bytearray, Sequence[bytes], random.Random], None], ...] = (
    _flip_bits,
    _write_length,
    _truncate,
    _delete,
    _repeat,
    _splice,
)
