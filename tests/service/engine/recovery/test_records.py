"""The bytes of records, whole, damaged and from elsewhere."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from safelight_service.engine.recovery.records import Record, decode, flatten, restore, sign

NAME = "a name"


def record(number: int, value: float = 0.5) -> Record:
    return Record(number, number, "x=1", ["tuple", 0], [torch.full((1, 4), value)])


def log(*numbers: int) -> bytes:
    return b"".join(record(number).encode(NAME) for number in numbers)


def numbers_of(data: bytes, name: str = NAME) -> list[int]:
    return [each.number for each, _ in decode(name, data)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "output",
    [
        torch.rand(2, 4),
        (torch.rand(2, 4),),
        (torch.rand(1, 3), None, [torch.rand(2), torch.rand(1, 1, 5)]),
    ],
)
def test_outputs_survive_as_bytes(output: Any, dtype: torch.dtype) -> None:
    tensors: list[torch.Tensor] = []
    shape = flatten(output, tensors)
    tensors = [tensor.to(dtype) for tensor in tensors]
    [(found, data)] = decode(NAME, Record(0, 3, "x=1", shape, tensors).encode(NAME))
    assert (found.step, found.signature) == (3, "x=1")
    again: list[torch.Tensor] = []
    assert flatten(restore(found.shape, found.tensors), again) == shape
    assert all(torch.equal(*pair) for pair in zip(again, tensors, strict=True))
    assert all(tensor.dtype is dtype for tensor in again)
    assert data == found.encode(NAME)


def test_an_output_with_other_parts_cannot_be_logged() -> None:
    with pytest.raises(TypeError, match="dict"):
        flatten(({"sample": torch.rand(1)},), [])


@pytest.mark.parametrize(
    ("numbers", "found"),
    [
        ((), []),
        ((0, 1, 2), [0, 1, 2]),
        ((0, 2), [0]),  # a gap
        ((1, 2), []),
        ((0, 1, 3, 1, 2), [0, 1, 2, 3]),  # an engine that was believed dead goes on
    ],
)
def test_records_count_up_to_a_gap(numbers: tuple[int, ...], found: list[int]) -> None:
    assert numbers_of(log(*numbers)) == found


def test_the_first_record_of_a_number_counts() -> None:
    data = record(0, 1.0).encode(NAME) + record(0, 2.0).encode(NAME)
    [(found, _)] = decode(NAME, data)
    assert found.tensors[0][0, 0] == 1.0


def flip(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


@pytest.mark.parametrize(
    ("damage", "count"),
    [
        (lambda data: data[:-1], 2),
        (lambda data: data[: len(data) // 3 + 5], 1),
        (lambda data: b"", 0),
        (lambda data: b"no log at all, but longer than a head", 0),
        (lambda data: flip(data, 0), 0),
        (lambda data: flip(data, 20), 0),  # the size
        (lambda data: flip(data, len(data) // 2), 1),
        (lambda data: flip(data, len(data) - 1), 2),
    ],
)
def test_damage_ends_a_log(damage: Callable[[bytes], bytes], count: int) -> None:
    assert len(decode(NAME, damage(log(0, 1, 2)))) == count


def test_records_of_another_log_are_refused() -> None:
    assert numbers_of(log(0, 1), "another name") == []


def test_a_signature_tells_types_and_shapes_apart() -> None:
    signatures = {
        sign({"x": value})
        for value in (
            torch.rand(1, 4),
            torch.rand(4, 1),
            torch.rand(1, 4, dtype=torch.float64),
            [torch.rand(1, 4)],
            {"y": torch.rand(1, 4)},
            1,
            None,
        )
    }
    assert len(signatures) == 7
