"""Unknown fields: the fields of a request that this version of the contract lacks."""

from collections.abc import Iterator

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from safelight_service.core.errors import FieldViolation, InvalidRequestError

_MAX_NAMED_BYTES = 4096
"""Python takes seconds to read a large message of unknown fields, which protobuf skips at once."""

_MAX_NAMED_COUNT = 8


def refuse_unknown_fields(request: Message) -> None:
    """Refuse a request that asks for something by fields that this service does not know.

    Raises:
        InvalidRequestError: it has such fields, at any depth; names them by number, and known
            ones of another type by name.
    """
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    size_bytes = request.ByteSize() - known.ByteSize()
    if size_bytes == 0:
        return
    if size_bytes > _MAX_NAMED_BYTES:
        text = f"holds {size_bytes} bytes of fields that this service does not know"
        raise InvalidRequestError([FieldViolation("", text)])
    violations = [*dict.fromkeys(_find(request))]
    raise InvalidRequestError(violations[:_MAX_NAMED_COUNT])


def _find(message: Message, prefix: str = "") -> Iterator[FieldViolation]:
    """Yield the violation of each unknown field, and of each known one of another type."""
    unknown = UnknownFieldSet(message)
    for index in range(len(unknown)):
        number = unknown[index].field_number
        field = message.DESCRIPTOR.fields_by_number.get(number)
        if field is None:
            text = "is a field that this service does not know; its caller may be newer"
            yield FieldViolation(f"{prefix}{number}", text)
        else:
            text = "has another type in the contract of its caller; generate its stubs again"
            yield FieldViolation(f"{prefix}{field.name}", text)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else (value,):
                yield from _find(part, f"{prefix}{field.name}.")
