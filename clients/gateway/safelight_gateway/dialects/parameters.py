"""Parameters: read a body into an `ImageRequest`, under any accepted name."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from safelight_gateway.dialects.dialect import Parameter
from safelight_gateway.dialects.registry import DialectRegistry
from safelight_gateway.edge.call import Call, parse_flag
from safelight_gateway.errors import invalid_field
from safelight_gateway.generation.request import ImageRequest

_Value = TypeVar("_Value")

_MIME_TYPES = {
    name: mime_type
    for mime_type in ("image/png", "image/jpeg", "image/webp")
    for name in (mime_type, mime_type.removeprefix("image/"))
} | {"jpg": "image/jpeg", "image/jpg": "image/jpeg"}
_NAMED_SIZES = {
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
_SIZE_TEXT = re.compile(r"(\d{1,5}) *[xX*] *(\d{1,5})")
_RANDOM_SEED = -1
"""Value that some APIs use for a random seed."""

_OPTIONS = "options"
"""Only hf-inference reads it; other dialects accept it without effect."""

_NAME = re.compile(r"\w{1,64}", re.ASCII)
_MAX_UNKNOWN_COUNT = 32


def read_request(
    call: Call,
    fields: Mapping[str, Any],
    *,
    model: Iterable[str] = (),
    own_names: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
    wait_for_model: bool = True,
) -> ImageRequest:
    """Read the fields of a body, under any accepted name.

    Args:
        call: The call; its headers override `options`.
        fields: Names and values. None counts as absent.
        model: Possible ids of the model, by precedence.
        own_names: Fields that the dialect reads itself.
        options: Values of `use_cache` and `wait_for_model` in the body.
        wait_for_model: Default for `wait_for_model`.

    Raises:
        GatewayError: a value has the wrong type.
    """
    dialects = call.state.dialects
    values = _Fields({name: value for name, value in fields.items() if value is not None}, dialects)
    width, height = _read_size(values)
    seed = values.read("seed", _integer)
    mime_type = values.read("output_format", _mime_type) or "image/png"
    count = values.read("n", _integer)
    return ImageRequest(
        prompt=values.read("prompt", _text) or "",
        negative_prompt=values.read("negative_prompt", _text) or None,
        width=width,
        height=height,
        num_inference_steps=values.read("num_inference_steps", _integer),
        guidance_scale=values.read("guidance_scale", _number),
        scheduler=values.read("scheduler", _text) or None,
        seed=None if seed == _RANDOM_SEED else seed,
        count=1 if count is None else count,
        model=tuple(model),
        output_mime_type=mime_type,
        # Some clients send a quality for PNG, which has none.
        output_quality=None
        if mime_type == "image/png"
        else values.read("output_quality", _integer),
        use_cache=_read_option(call, options, "use_cache", default=True),
        wait_for_model=_read_option(call, options, "wait_for_model", default=wait_for_model),
        unknown_parameters=values.unknown_names(own_names),
        context=call.context,
    )


class _Fields:
    """Fields of a body, looked up by parameter."""

    def __init__(self, fields: Mapping[str, Any], dialects: DialectRegistry) -> None:
        self._fields = fields
        self._dialects = dialects

    def all(self, parameter: Parameter) -> list[tuple[str, Any]]:
        """Return the name and value of every field for a parameter, by precedence."""
        names = self._dialects.names_of(parameter)
        return [(name, self._fields[name]) for name in names if name in self._fields]

    def read(self, parameter: Parameter, convert: Callable[[str, Any], _Value]) -> _Value | None:
        """Return the converted value of a parameter; None if absent."""
        return next((convert(name, value) for name, value in self.all(parameter)), None)

    def unknown_names(self, own_names: Iterable[str]) -> tuple[str, ...]:
        """Return the names of unknown fields, limited in length and number."""
        known = self._dialects.known_parameters | {_OPTIONS, *own_names}
        unknown = sorted(self._fields.keys() - known)
        return tuple(name for name in unknown if _NAME.fullmatch(name))[:_MAX_UNKNOWN_COUNT]


def _read_option(
    call: Call, options: Mapping[str, Any] | None, name: str, *, default: bool
) -> bool:
    header = call.flag(f"x-{name.replace('_', '-')}")
    if header is not None:
        return header
    value = (options or {}).get(name)
    return default if value is None else parse_flag(f"options.{name}", value)


def _read_size(values: _Fields) -> tuple[int | None, int | None]:
    """Return width and height in pixels; explicit fields override combined ones."""
    width = height = None
    for name, value in reversed(values.all("size")):
        match value:
            case "auto":
                continue
            case {"width": _, "height": _} as size:
                width = _integer(f"{name}.width", size["width"])
                height = _integer(f"{name}.height", size["height"])
            case str(text) if text in _NAMED_SIZES:
                width, height = _NAMED_SIZES[text]
            case str(text) if match := _SIZE_TEXT.fullmatch(text.strip()):
                width, height = int(match[1]), int(match[2])
            case other:
                allowed = f"{{width, height}}, WIDTHxHEIGHT or one of {', '.join(_NAMED_SIZES)}"
                raise invalid_field(name, f"must be {allowed}, not {_shown(other)}")
    own_width = values.read("width", _integer)
    own_height = values.read("height", _integer)
    return (
        width if own_width is None else own_width,
        height if own_height is None else own_height,
    )


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise invalid_field(name, f"must be an integer, not {_shown(value)}")
    return int(value)


def _number(name: str, value: Any) -> float:
    if not isinstance(value, bool) and isinstance(value, int | float):
        with suppress(OverflowError):
            return float(value)
    raise invalid_field(name, f"must be a number, not {_shown(value)}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid_field(name, f"must be a string, not {_shown(value)}")
    return value


def _mime_type(name: str, value: Any) -> str:
    mime_type = _MIME_TYPES.get(value.lower()) if isinstance(value, str) else None
    if mime_type is None:
        raise invalid_field(name, f"must be png, jpeg or webp, not {_shown(value)}")
    return mime_type


def _shown(value: Any) -> str:
    """Return a value in a form short enough for a message."""
    return repr(value)[:100]
