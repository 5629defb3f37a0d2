"""Rules: decides for each field of a body whether it is read, ignored or refused.

A field may be ignored only if the caller still gets the same kind of image, delivered the same
way. All others are read or refused.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from safelight import FieldViolation

from safelight_gateway.dialects.dialect import Refusal
from safelight_gateway.errors import invalid_fields

IMAGE_INPUT = Refusal("is not supported: images are made from text alone")
ADAPTER = Refusal("is not supported: a request cannot load weights; send adapters of the model")
WEBHOOK = Refusal("is not supported: the gateway calls no URL; wait, or poll for the result")

REFUSALS: Mapping[str, Refusal] = {
    **dict.fromkeys(
        (
            "control_image",
            "controlnet",
            "controlnets",
            "image",
            "image_prompt",
            "image_url",
            "image_urls",
            "images",
            "init_image",
            "input_image",
            "input_images",
            "ip_adapter",
            "ip_adapters",
            "mask",
            "mask_image",
            "mask_url",
            "reference_image_url",
            "reference_images",
            "strength",
        ),
        IMAGE_INPUT,
    ),
    **dict.fromkeys(("lora", "embeddings"), ADAPTER),
}
"""Fields of several APIs that all routes refuse, with the reasons."""

HINTS = frozenset({"quality", "style", "user"})
"""Fields of several APIs that have no effect on any route."""

_MAX_COUNT = 32
_MAX_LENGTH = 64


class FieldRules(Protocol):
    """Rules for fields; `DialectRegistry` combines those of all dialects."""

    parameter_names: frozenset[str]
    hints: frozenset[str]
    refusals: dict[str, Refusal]


def is_empty(value: object) -> bool:
    """Return whether a value asks for nothing: null, false, or empty."""
    return value is None or value is False or value in ("", [], {})


def find_ignored(
    fields: Mapping[str, Any],
    rules: FieldRules,
    own_fields: Collection[str] = (),
    *,
    has_parameters: bool = True,
) -> tuple[str, ...]:
    """Return the fields that have no effect, if no field has to be refused.

    Args:
        fields: Names and values.
        rules: The rules.
        own_fields: Fields that the caller of this function reads.
        has_parameters: Whether this part of the body may hold parameters.

    Raises:
        GatewayError: fields are not supported, or unknown; the error names all of them.
    """
    known = {*own_fields, *(rules.parameter_names if has_parameters else ())}
    ignored: list[str] = []
    violations: list[FieldViolation] = []
    for name in sorted(fields.keys() - known):
        value = fields[name]
        refusal = rules.refusals.get(name)
        if is_empty(value) or (refusal is not None and value in refusal.harmless):
            continue
        if name in rules.hints:
            ignored.append(name)
            continue
        # Looking for near names takes time, so that a body of many fields would block the gateway.
        if len(violations) < _MAX_COUNT:
            reason = refusal.reason if refusal is not None else _explain_unknown(name, known)
            violations.append(FieldViolation(name[:_MAX_LENGTH], reason))
    if violations:
        raise invalid_fields(violations)
    return tuple(ignored)


def _explain_unknown(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name[:_MAX_LENGTH], sorted(known), n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"is not a field of this API{hint}"
