"""Metadata: headers of the Hugging Face task, as gRPC metadata."""

from collections.abc import Iterable

from safelight_service.core.errors import FieldViolation, InvalidRequestError, quote

_TRUE, _FALSE = ("1", "true"), ("0", "false")


def parse_flag(metadata: Iterable[tuple[str, str | bytes]], key: str, *, default: bool) -> bool:
    """Parse a boolean: 1, 0, true or false, in any case; the last value of the key counts.

    Raises:
        InvalidRequestError: the value is not a boolean.
    """
    values = [str(value) for name, value in metadata if name == key]
    if not values:
        return default
    value = values[-1].strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise InvalidRequestError([FieldViolation(key, f"must be true or false, not {quote(value)}")])
