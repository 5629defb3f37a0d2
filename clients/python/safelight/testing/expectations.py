"""Expectations: compares a call with its vector."""

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

_UNLIMITED_S = 1e8
"""gRPC reports a call without a deadline as one whose deadline is centuries away."""


def find_differences(
    expected: Mapping[str, Any], request: Message, context: grpc.ServicerContext
) -> list[str]:
    """Return where a call is not the expected one: its request, metadata and deadline."""
    sent = json_format.MessageToDict(request, preserving_proto_field_name=True)
    found = _differences(expected.get("request", {}), sent, "request")
    metadata = dict(context.invocation_metadata())
    found += _differences(expected.get("metadata", {}), metadata, "metadata")
    if "deadline_ms" in expected:
        found += _check_deadline(expected["deadline_ms"], context.time_remaining())
    return found


def _check_deadline(expected: Mapping[str, int] | None, left_s: float | None) -> list[str]:
    if left_s is None or left_s > _UNLIMITED_S:
        return ["the call has no deadline"] if expected else []
    if expected and expected["min"] <= 1e3 * left_s <= expected["max"]:
        return []
    return [f"the call's deadline is in {1e3 * left_s:.0f} ms, not {expected or 'unlimited'}"]


def _differences(expected: Any, found: Any, path: str) -> list[str]:
    """Return where `found` lacks or contradicts `expected`; None stands for an absent key."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        return [
            difference
            for key, value in expected.items()
            for difference in _differences(value, found.get(key), f"{path}.{key}")
        ]
    return [] if expected == found else [f"{path} is {found!r}, not {expected!r}"]
