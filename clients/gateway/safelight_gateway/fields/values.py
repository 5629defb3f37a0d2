"""Values: reads the fields of a body by parameter, and remembers the names that were used."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from safelight_gateway.dialects.dialect import Parameter
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.errors import invalid_field
from safelight_gateway.fields.rules import is_empty

_Value = TypeVar("_Value")

_MIME_TYPES = {
    name: mime_type
    for mime_type in ("image/png", "image/jpeg", "image/webp")
    for name in (mime_type, mime_type.removeprefix("image/"))
} | {"jpg": "image/jpeg", "image/jpg": "image/jpeg"}
_INT_BITS, _LONG_BITS = 31, 63


class Values:
    """Fields of a body, looked up by parameter.

    Attributes:
        names: Name under which the caller sent each parameter that was read.
    """

    def __init__(self, fields: Mapping[str, Any], dialects: DialectRegistry) -> None:
        self._fields = fields
        self._dialects = dialects
        self.names: dict[Parameter, str] = {}

    def read(
        self, parameter: Parameter, convert: Callable[[str, Any], _Value | None]
    ) -> _Value | None:
        """Return the converted value of a parameter; None if absent.

        A value that converts to None asks for nothing.

        Raises:
            GatewayError: the value is of the wrong type, or two names give different values.
        """
        found: list[tuple[str, _Value]] = []
        for name in self._dialects.names_of(parameter):
            value = convert(name, self._fields[name]) if name in self._fields else None
            if value is not None:
                found.append((name, value))
        if not found:
            return None
        name, first = found[0]
        self.names[parameter] = name
        for other, other_value in found[1:]:
            if other_value != first:
                raise invalid_field(other, f"says something else than {name}; send one of them")
        return first


def integer(name: str, value: Any, bits: int = _INT_BITS) -> int:
    """Return an integer that fits the contract's type.

    Raises:
        GatewayError: the value is not an integer, or too large.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise invalid_field(name, f"must be an integer, not {shown(value)}")
    if not -(2**bits) <= value < 2**bits:
        raise invalid_field(name, f"must be an integer of at most {bits} bits, not {shown(value)}")
    return int(value)


def long_integer(name: str, value: Any) -> int:
    """Return an integer that fits into 64 bits with its sign.

    Raises:
        GatewayError: the value is not an integer, or too large.
    """
    return integer(name, value, _LONG_BITS)


def number(name: str, value: Any) -> float:
    """Return a number.

    Raises:
        GatewayError: the value is not a number.
    """
    if not isinstance(value, bool) and isinstance(value, int | float):
        with suppress(OverflowError):
            return float(value)
    raise invalid_field(name, f"must be a number, not {shown(value)}")


def text(name: str, value: Any) -> str:
    """Return a string of valid Unicode.

    Raises:
        GatewayError: the value is not a string of valid Unicode.
    """
    if not isinstance(value, str):
        raise invalid_field(name, f"must be a string, not {shown(value)}")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise invalid_field(name, "must be valid Unicode, without half of a surrogate pair")
    return value


def flag(name: str, value: Any) -> bool:
    """Return a boolean.

    Raises:
        GatewayError: the value is not true or false.
    """
    if not isinstance(value, bool):
        raise invalid_field(name, f"must be true or false, not {shown(value)}")
    return value


def model_id(name: str, value: Any) -> str:
    """Return a model's id; empty where the caller leaves the model to the service.

    Raises:
        GatewayError: the value is not a string of valid Unicode.
    """
    return "" if is_empty(value) else text(name, value)


def image_type(name: str, value: Any) -> str:
    """Return the MIME type of a format.

    Raises:
        GatewayError: the format is not supported.
    """
    mime_type = _MIME_TYPES.get(value.lower()) if isinstance(value, str) else None
    if mime_type is None:
        raise invalid_field(name, f"must be png, jpeg or webp, not {shown(value)}")
    return mime_type


def shown(value: Any) -> str:
    """Return a value in a form short enough for a message."""
    return repr(value)[:100]
