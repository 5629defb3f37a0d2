"""Conversion and validation of random requests."""

from typing import Any

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.engine.models.loading import load_model
from safelight_service.settings import EMBEDDED_MODEL, ModelSettings
from support.engine.tiny_models import MERGING
from tests.service.grpc_server.request_path import take

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    FieldDescriptor.CPPTYPE_INT32: INT32,
    FieldDescriptor.CPPTYPE_INT64: INT64,
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_STRING: st.text()
    | st.sampled_from(["euler", "image/webp", "x" * 9999]),
}
SIDES = INT32.filter(lambda side: side % 8 or not 64 <= side <= 512)
OUTSIDE: dict[str, st.SearchStrategy[Any]] = {
    "inputs": st.text(" \t\r\n") | st.integers(10_001, 20_000).map("x".__mul__),
    "parameters.guidance_scale": st.floats().filter(lambda scale: not 0 <= scale <= 50),
    "parameters.num_inference_steps": INT32.filter(lambda steps: not 1 <= steps <= 150),
    "parameters.width": SIDES,
    "parameters.height": SIDES,
    "parameters.scheduler": st.text().filter(lambda name: not name.isascii()),
    "parameters.seed": st.integers(-(2**63), -1),
    "generation_id": st.text(min_size=1).filter(lambda name: not name.isascii()),
    "image_count": INT32.filter(lambda count: not 1 <= count <= 8),
    "output.mime_type": st.text(min_size=1).map("text/".__add__),
    "output.quality": INT32,  # PNG has none
    "preview.interval_steps": st.integers(-(2**31), -1),
    "preview.mime_type": st.text(min_size=1).map("text/".__add__),
    "preview.max_side_px": INT32.filter(lambda side: not 16 <= side <= 512),
    "linger": st.builds(Duration, seconds=INT64.filter(lambda s: not 0 <= s <= 3600)),
}
"""Values that each field refuses in any request, by path."""


def messages(kind: Descriptor) -> st.SearchStrategy[Message]:
    """Draw a message with any fields set, to any values of their types."""
    fields = {}
    for field in kind.fields:
        values = messages(field.message_type) if field.message_type else VALUES[field.cpp_type]
        fields[field.name] = st.lists(values, max_size=20) if field.is_repeated else values
    made = message_factory.GetMessageClass(kind)
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: made(**values))


def request_with(path: str, value: Any) -> bytes:
    """Serialise a request that is good except for one field."""
    request = pb.GenerateRequest(inputs="a red circle")
    *parents, name = path.split(".")
    message: Message = getattr(request, parents[0]) if parents else request
    if isinstance(value, Message):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
    return request.SerializeToString()


@pytest.fixture(scope="module")
def shapes() -> LoadedModel:
    """The embedded model."""
    return load_model(ModelSettings(name=EMBEDDED_MODEL, source=EMBEDDED_MODEL), MERGING)


@given(request_=messages(pb.GenerateRequest.DESCRIPTOR))
def test_any_request_is_settled_or_its_fields_are_named(
    request_: Message, shapes: LoadedModel
) -> None:
    """Fault 4 and 6."""
    take(request_.SerializeToString(), shapes)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_request_or_are_refused(data: bytes, shapes: LoadedModel) -> None:
    """Fault 6."""
    take(data, shapes)


@pytest.mark.parametrize("path", OUTSIDE)
@given(data=st.data())
def test_a_value_outside_its_rule_is_named_and_no_other(
    path: str, data: st.DataObject, shapes: LoadedModel
) -> None:
    """Fault 4: NaN, infinities and negative numbers among them."""
    assert take(request_with(path, data.draw(OUTSIDE[path])), shapes) == [path]


@pytest.mark.parametrize("path", ["parameters.scheduler", "output.mime_type", "generation_id"])
def test_however_long_a_value_is_its_refusal_can_be_received(
    path: str, shapes: LoadedModel
) -> None:
    """Fault 4: gRPC clients accept 8 KiB of metadata, including the status."""
    request = pb.GenerateRequest(inputs="a red circle")
    *parents, name = path.split(".")
    setattr(
        getattr(request, parents[0]) if parents else request, name, "\N{ARTIST PALETTE}" * 10_000
    )
    assert take(request.SerializeToString(), shapes) == [path]
