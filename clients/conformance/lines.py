"""The lines of runners, compared with the outcomes of vectors."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from safelight.testing import image_bytes
from safelight.v1 import text_to_image_pb2 as pb

_MESSAGES: dict[str, type[Message]] = {
    "Generate": pb.GenerationEvent,
    "WatchGeneration": pb.GenerationEvent,
    "CancelGeneration": pb.CancelGenerationResponse,
    "ListModels": pb.ListModelsResponse,
    "GetModel": pb.GetModelResponse,
}
_ERROR_KEYS = {"code", "reason", "message", "violations", "retry_after_ms"}


def compare_lines(
    method: str, expected: Sequence[Mapping[str, Any]], found: Sequence[str]
) -> list[str]:
    """Return the differences between an outcome and the lines of a runner.

    Args:
        method: Method of the job.
        expected: The outcome of the vector.
        found: The lines, without line ends.
    """
    differences = []
    for number in range(max(len(expected), len(found))):
        wanted = _outcome(method, expected[number]) if number < len(expected) else "nothing more"
        if number >= len(found):
            differences.append(f"line {number + 1} is missing: {wanted}")
            continue
        try:
            printed = _normal(method, json.loads(found[number]), wanted)
        except (ValueError, json_format.ParseError) as error:
            differences.append(f"line {number + 1} cannot be read: {found[number][:500]} ({error})")
            continue
        if printed != wanted:
            differences.append(f"line {number + 1} is {printed}\n    and not {wanted}")
    return differences


def _outcome(method: str, line: Mapping[str, Any]) -> str:
    """Return a line of an outcome in normal form; adds the SHA-256 of an image."""
    image = line.get("image")
    if image is not None:
        header = json_format.ParseDict(image, pb.ImageHeader())
        sha256 = hashlib.sha256(image_bytes(header, header.size_bytes)).hexdigest()
        line = {"image": {**image, "sha256": sha256}, "received": sha256}
    return _normal(method, line, "")


def _normal(method: str, line: Mapping[str, Any], wanted: str) -> str:
    """Return a line in normal form: without defaults and unknown enum values."""
    if not isinstance(line, dict):
        raise ValueError("not an object")
    if "error" in line:
        return _normal_error(line["error"], wanted)
    fields = dict(line)
    received = fields.pop("received", None)
    message = json_format.ParseDict(fields, _MESSAGES[method]())
    if isinstance(message, pb.GenerationEvent):
        if message.HasField("accepted"):
            message.accepted.ClearField("generation_id")
        for _, event in message.ListFields():  # which stays, even if it is empty
            _normalize(event)
    else:
        _normalize(message)
    normal = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return json.dumps(normal | ({"received": received} if received else {}), ensure_ascii=False)


def _normal_error(error: Mapping[str, Any], wanted: str) -> str:
    if unknown := error.keys() - _ERROR_KEYS:
        raise ValueError(f"unknown keys: {', '.join(sorted(unknown))}")
    fields = {key: error[key] for key in error if error[key] not in (None, [])}
    if wanted and '"message"' not in wanted:
        fields.pop("message", None)
    return json.dumps({"error": fields}, ensure_ascii=False, sort_keys=True)


def _normalize(message: Message) -> None:
    """Remove empty messages and unknown values of enums."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for each in [value] if isinstance(value, Message) else value:
                _normalize(each)
            if isinstance(value, Message) and not value.ListFields():
                message.ClearField(field.name)
        elif field.enum_type is not None and value not in field.enum_type.values_by_number:
            message.ClearField(field.name)
