"""Fields of a newer contract: refused by number, and not ignored."""

import time

import pytest
from google.protobuf.message import Message
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.core.errors import InvalidRequestError
from safelight_service.grpc_server.unknown_fields import refuse_unknown_fields

VARINT_111, GROUP_200 = b"\xf8\x06\x01", b"\xc3\x0c\x08\x01\xc4\x0c"
TEXT_2000 = b"\x82\x7d\x03abc"


def with_unknown(message: Message, raw: bytes) -> Message:
    """Return the message with fields that its type does not have."""
    message.MergeFromString(raw)
    return message


def full_request() -> pb.GenerateRequest:
    request = pb.GenerateRequest(inputs="a red circle", image_count=2)
    request.parameters.seed = 0
    request.output.quality = 90
    request.preview.interval_steps = 1
    request.linger.FromSeconds(2)
    return request


def nested(name: str, raw: bytes) -> pb.GenerateRequest:
    """Return a request whose message in a field has more fields than its type."""
    request = full_request()
    with_unknown(getattr(request, name), raw)
    return request


@pytest.mark.parametrize(
    ("request_", "paths"),
    [
        (with_unknown(full_request(), VARINT_111), ["111"]),
        (with_unknown(full_request(), VARINT_111 * 3 + GROUP_200 + TEXT_2000), None),
        (nested("parameters", VARINT_111), ["parameters.111"]),
        (nested("output", TEXT_2000), ["output.2000"]),
        (nested("preview", GROUP_200), ["preview.200"]),
        (nested("linger", VARINT_111), ["linger.111"]),
        (with_unknown(pb.WatchGenerationRequest(generation_id="a"), VARINT_111), ["111"]),
        (with_unknown(pb.CancelGenerationRequest(), VARINT_111), ["111"]),
        (with_unknown(pb.ListModelsRequest(), VARINT_111), ["111"]),
        (with_unknown(pb.GetModelRequest(), VARINT_111), ["111"]),
    ],
)
def test_a_field_that_the_contract_lacks_is_refused_by_its_number(
    request_: Message, paths: list[str] | None
) -> None:
    with pytest.raises(
        InvalidRequestError, match="is a field that this service does not know"
    ) as raised:
        refuse_unknown_fields(request_)
    assert [each.field for each in raised.value.violations] == (paths or ["111", "200", "2000"])


@pytest.mark.parametrize(
    ("data", "path"), [(b"\x08\x00", "inputs"), (b"\x12\x02\x20\x00\x48\x01", "adapters")]
)
def test_a_field_of_another_type_is_refused_by_its_name(data: bytes, path: str) -> None:
    """Protobuf skips a number in place of a text or a message, like an unknown field."""
    with pytest.raises(InvalidRequestError, match="has another type in the contract") as raised:
        refuse_unknown_fields(pb.GenerateRequest.FromString(data))
    assert [each.field for each in raised.value.violations] == [path]


@pytest.mark.parametrize(
    "request_", [pb.GenerateRequest(), full_request(), pb.ListModelsRequest(), pb.GetModelRequest()]
)
def test_the_contracts_own_fields_pass(request_: Message) -> None:
    refuse_unknown_fields(request_)


def test_a_flood_of_unknown_fields_is_refused_at_once() -> None:
    flood = with_unknown(full_request(), VARINT_111 * 1_000_000)
    began_at = time.monotonic()
    with pytest.raises(InvalidRequestError, match="holds 3000000 bytes of fields"):
        refuse_unknown_fields(flood)
    assert time.monotonic() - began_at < 1
