"""Request path: from bytes to a resolved request, for tests with arbitrary input."""

import re

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.core.errors import InvalidRequestError
from safelight_service.core.tenant import NO_TENANT
from safelight_service.core.validation import resolve
from safelight_service.engine.models.loaded_model import LoadedModel
from safelight_service.grpc_server.convert import from_generate_request
from safelight_service.grpc_server.status import to_status
from safelight_service.grpc_server.unknown_fields import refuse_unknown_fields

_MAX_STATUS_BYTES = 8 * 1024
"""Largest metadata that clients accept by default."""


def take(data: bytes, model: LoadedModel) -> list[str]:
    """Deserialise, convert and resolve a request; return the paths of the wrong fields.

    The path is "" for bytes that are no message. Checks that clients can receive the status,
    and that its fields exist.
    """
    try:
        request = pb.GenerateRequest.FromString(data)
    except DecodeError:
        return [""]
    converted = from_generate_request(
        request, waits_for_model=False, uses_cache=True, time_left_s=None, tenant=NO_TENANT
    )
    try:
        refuse_unknown_fields(request)
        resolve(converted, model.capabilities, model.adapter.count_tokens)
    except InvalidRequestError as error:
        paths = [violation.field for violation in error.violations]
        assert paths
        assert all(not path or _is_field(path, pb.GenerateRequest.DESCRIPTOR) for path in paths)
        status = to_status(error)
        # gRPC encodes bytes other than printable ASCII as three characters.
        size = sum(len(value) for _, value in status.trailing_metadata or ())
        size += sum(1 if " " <= char <= "~" else 3 * len(char.encode()) for char in status.details)
        assert size < _MAX_STATUS_BYTES, size
        return paths
    return []


def _is_field(path: str, message: Descriptor | None) -> bool:
    name, _, rest = path.partition(".")
    name = re.sub(r"\[\d+\]$", "", name)  # the index of an item
    if name.isdecimal():  # the number of a field that the contract does not have
        return message is not None and int(name) not in message.fields_by_number
    field = message.fields_by_name.get(name) if message is not None else None
    return field is not None and (not rest or _is_field(rest, field.message_type))
