"""Metadata: the Hugging Face task's headers, as gRPC metadata keys."""

from collections.abc import Iterable

from safelight_service.core.errors import FieldViolation, InvalidRequestError, quote

_TRUE, _FALSE = ("1", "true"), ("0", "false")


def parse_flag(metadata: Iterable[tuple[str, str | bytes]], key: str, *, default: bool) -> bool:
    """Read a boolean, loosely: 1, 0, true or false in any case; the last one counts.

    Raises:
        InvalidRequestError: the value is none of these.
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
