"""Every field and every value of the contract's responses reaches the client's own types."""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
import safelight
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from safelight import Client
from safelight._client.convert import completed_from_proto, model_from_proto, outcome_from_proto
from safelight.v1 import text_to_image_pb2 as pb

from tests.client.scripted_service import ScriptedService

DATA = b"the bytes of an image"

MIRRORS: dict[str, type] = {
    "GenerationAccepted": safelight.Accepted,
    "GenerationCompleted": safelight.Completed,
    "GenerationQueued": safelight.Queued,
    "GenerationRestarted": safelight.Restarted,
    "GenerationTimings": safelight.Timings,
    "GenerationUsage": safelight.Usage,
    "ImageHeader": safelight.Image,
    "ImagePreview": safelight.Preview,
    "Model": safelight.Model,
    "ModelCapabilities": safelight.Capabilities,
    "ModelLimits": safelight.Limits,
    "ModelLoading": safelight.ModelLoading,
    "Scheduler": safelight.Scheduler,
    "StepProgress": safelight.Progress,
    "TextToImageParameters": safelight.Parameters,
}
"""The dataclass of each message: an attribute for each field, or with `_s` for each duration."""

OTHERWISE = {
    "BatchWidth": "an item of Completed.batch_widths",
    "CancelGenerationResponse": "what cancel() returns",
    "GenerateResponse": "carries one event",
    "GenerationAccepted.output": "Accepted.output_mime_type and output_quality",
    "GenerationCompleted.batch_widths": "a mapping, Completed.batch_widths",
    "GenerationEvent": "each kind is a dataclass",
    "GetModelResponse": "what get_model() returns",
    "ImageChunk": "its bytes are part of Image.data",
    "ImageHeader.size_bytes": "the length of Image.data",
    "ListModelsResponse": "what list_models() returns",
    "OutputOptions": "two fields of Accepted",
    "WatchGenerationResponse": "carries one event",
}
"""The messages and fields that have no counterpart of their own, and what they become."""


def reachable_messages() -> set[str]:
    """Return the contract's messages that any response holds."""
    methods = pb.DESCRIPTOR.services_by_name["TextToImageService"].methods
    found: set[str] = set()
    pending: list[Descriptor] = [method.output_type for method in methods]
    while pending:
        message = pending.pop()
        if message.file is pb.DESCRIPTOR and message.name not in found:
            found.add(message.name)
            pending += [field.message_type for field in message.fields if field.message_type]
    return found


def fill(message: Any, numbers: Iterator[int]) -> Any:
    """Set every field of a message, each to another value as far as its type allows."""
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if field.message_type is not None:
            fill(value.add() if field.is_repeated else value, numbers)
        elif field.is_repeated:
            value.append(make_scalar(field, next(numbers)))
        else:
            setattr(message, field.name, make_scalar(field, next(numbers)))
    return message


def make_scalar(field: FieldDescriptor, number: int) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    values: dict[int, object] = {
        FieldDescriptor.TYPE_BOOL: True,
        FieldDescriptor.TYPE_BYTES: f"{number}".encode(),
        FieldDescriptor.TYPE_DOUBLE: number + 0.5,
        FieldDescriptor.TYPE_STRING: f"{field.name} {number}",
    }
    return values.get(field.type, number)


def find_lost_fields(message: Message, mirror: object) -> Iterator[str]:
    """Yield the fields of a message, and of those within, whose value its dataclass lacks."""
    assert type(mirror) is MIRRORS[message.DESCRIPTOR.name]
    for field in message.DESCRIPTOR.fields:
        name = f"{message.DESCRIPTOR.name}.{field.name}"
        value = getattr(message, field.name)
        if name in OTHERWISE:
            continue
        if isinstance(value, Duration):
            if getattr(mirror, f"{field.name}_s", None) != value.seconds + value.nanos / 1e9:
                yield name
        elif not hasattr(mirror, field.name):
            yield name
        elif field.message_type is not None:
            mirrored = getattr(mirror, field.name)
            pairs = zip(value, mirrored, strict=True) if field.is_repeated else [(value, mirrored)]
            for pair in pairs:
                yield from find_lost_fields(*pair)
        elif field.enum_type is not None:
            if getattr(mirror, field.name).name != names_of(field.enum_type)[value]:
                yield name
        elif getattr(mirror, field.name) != (tuple(value) if field.is_repeated else value):
            yield name


def names_of(enum: Any) -> dict[int, str]:
    """Return the names of an enum's values, without what all of them begin with."""
    prefix = enum.values[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix) for value in enum.values}


def test_every_message_of_the_responses_is_accounted_for() -> None:
    assert reachable_messages() == {*MIRRORS} | {name for name in OTHERWISE if "." not in name}


def test_every_field_of_every_event_reaches_the_caller(
    scripted: ScriptedService, client: Client
) -> None:
    numbers = count(1)
    kinds = [field.name for field in pb.GenerationEvent.DESCRIPTOR.oneofs_by_name["kind"].fields]
    kinds.sort(key=lambda kind: kind in ("image", "chunk", "completed"))  # the last ones
    sent = {kind: fill(getattr(pb.GenerationEvent(), kind), numbers) for kind in kinds}
    header, chunk = sent["image"], sent["chunk"]
    header.image_index, header.size_bytes = 0, len(DATA)
    header.sha256 = hashlib.sha256(DATA).hexdigest()
    chunk.image_index, chunk.offset_bytes, chunk.data = 0, 0, DATA
    scripted.play(
        *(
            pb.GenerateResponse(event=pb.GenerationEvent(**{kind: message}))
            for kind, message in sent.items()
        )
    )
    with client.generate("a red circle") as generation:
        events = [*generation]
    mirrored = [message for kind, message in sent.items() if kind != "chunk"]
    pairs = zip(mirrored, events, strict=True)
    assert [name for pair in pairs for name in find_lost_fields(*pair)] == []
    accepted, *_, image, completed = events
    assert isinstance(accepted, safelight.Accepted)
    output = sent["accepted"].output
    assert accepted.output_mime_type == output.mime_type
    assert accepted.output_quality == output.quality
    assert isinstance(image, safelight.Image)
    assert image.data == DATA
    assert isinstance(completed, safelight.Completed)
    [width] = sent["completed"].batch_widths
    assert completed.batch_widths == {width.image_count: width.forward_count}


def test_every_field_of_a_model_reaches_the_caller(
    scripted: ScriptedService, client: Client
) -> None:
    model = fill(pb.Model(), count(1))
    scripted.models = [model]
    assert [*find_lost_fields(model, client.get_model())] == []
    assert client.list_models() == [client.get_model()]


@pytest.mark.parametrize(
    ("enum", "convert"),
    [
        (pb.ModelState, lambda value: model_from_proto(pb.Model(state=value)).state),
        (
            pb.CacheStatus,
            lambda value: completed_from_proto(pb.GenerationCompleted(cache=value)).cache,
        ),
        (pb.GenerationState, outcome_from_proto),
    ],
)
def test_every_value_of_an_enum_has_its_name(enum: Any, convert: Callable[[int], Any]) -> None:
    names = names_of(enum.DESCRIPTOR)
    assert {value: convert(value).name for value in names} == {**names, 0: "UNKNOWN"}
