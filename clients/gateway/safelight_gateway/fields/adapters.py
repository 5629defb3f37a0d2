"""Adapters: reads the adapters (LoRA) that a body asks for, as several APIs name them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safelight_gateway.dialects.dialect import Parameter
from safelight_gateway.errors import invalid_field
from safelight_gateway.fields.rules import is_empty
from safelight_gateway.fields.values import Values, model_id, number, shown, text

_IDS = ("name", "path", "url")
"""Keys of an adapter's id in a list: the contract's, fal's and Together's, Nebius'."""

_SCALE = "scale"
_PAIRS: tuple[tuple[Parameter, Parameter], ...] = (
    ("lora_weights", "lora_scale"),
    ("extra_lora", "extra_lora_scale"),
)
"""Parameters of Replicate, which has no list: an adapter's id, and its scale."""


@dataclass(frozen=True, slots=True)
class Adapters:
    """The adapters of a request.

    Attributes:
        scales: Maps names in the service to scales. None takes the adapter's default.
        field_names: Maps paths in the contract, such as `adapters[0].name`, to the caller's names.
        ignored: Names of scales without an adapter.
    """

    scales: Mapping[str, float | None]
    field_names: Mapping[str, str]
    ignored: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    id: str
    scale: float | None
    id_field: str = field(compare=False)
    scale_field: str = field(compare=False)


def read_adapters(values: Values, aliases: Mapping[str, str]) -> Adapters:
    """Read the adapters, and replace ids by the names that the operator gave them.

    Args:
        values: Fields of the body.
        aliases: Maps ids in lower case to names in the service.

    Raises:
        GatewayError: a value is of the wrong type, or two ids stand for one adapter.
    """
    items = [*(values.read("adapters", _parse_list) or ())]
    names = {"adapters": values.names["adapters"]} if items else {}
    ignored = []
    for id_parameter, scale_parameter in _PAIRS:
        id_, scale = values.read(id_parameter, _parse_id), values.read(scale_parameter, number)
        scale_field = values.names.get(scale_parameter, scale_parameter)
        if id_ is not None:
            items.append(_Item(id_, scale, values.names[id_parameter], scale_field))
            names.setdefault("adapters", values.names[id_parameter])
        elif scale is not None:
            ignored.append(scale_field)
    scales: dict[str, float | None] = {}
    for number_, item in enumerate(items):
        name = aliases.get(item.id.lower(), item.id)
        if name in scales:
            raise invalid_field(item.id_field, f"names {shown(name)} a second time")
        scales[name] = item.scale
        names[f"adapters[{number_}].name"] = item.id_field
        names[f"adapters[{number_}].scale"] = item.scale_field
    return Adapters(scales, names, tuple(ignored))


def _parse_id(name: str, value: Any) -> str | None:
    return model_id(name, value) or None


def _parse_list(name: str, value: Any) -> tuple[_Item, ...] | None:
    if is_empty(value):
        return None
    if not isinstance(value, list):
        raise invalid_field(name, f"must be a list of adapters, not {shown(value)}")
    return tuple(_parse_item(f"{name}[{index}]", item) for index, item in enumerate(value))


def _parse_item(name: str, item: Any) -> _Item:
    """Return an adapter: an id alone, or an object with an id and perhaps a scale."""
    if isinstance(item, str):
        return _Item(text(name, item), None, name, name)
    if not isinstance(item, dict):
        raise invalid_field(name, f"must be a name, or an object with one, not {shown(item)}")
    sent = {key: value for key, value in item.items() if not is_empty(value)}
    ids = [key for key in _IDS if key in sent]
    if len(ids) != 1:
        raise invalid_field(name, f"must have one of {', '.join(_IDS)}")
    if unknown := sorted(sent.keys() - {*ids, _SCALE}):
        raise invalid_field(f"{name}.{unknown[0][:64]}", f"is not supported beside {ids[0]}")
    scale = number(f"{name}.{_SCALE}", sent[_SCALE]) if _SCALE in sent else None
    return _Item(text(f"{name}.{ids[0]}", sent[ids[0]]), scale, f"{name}.{ids[0]}", f"{name}.scale")
