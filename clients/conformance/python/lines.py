"""Lines: events, models and errors of the Python client in the contract's protobuf JSON."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from safelight import (
    Accepted,
    Completed,
    Event,
    Image,
    Model,
    ModelLoading,
    Parameters,
    Preview,
    Progress,
    Queued,
    Restarted,
    SafelightError,
    ServiceError,
)


def event_line(event: Event) -> dict[str, Any]:
    """Return the line of an event."""
    match event:
        case Accepted():
            output = {"mime_type": event.output_mime_type, "quality": event.output_quality}
            return {
                "accepted": {
                    "generation_id": event.generation_id,
                    "model": event.model,
                    "model_revision": event.model_revision,
                    "parameters": _parameters(event.parameters),
                    "image_count": event.image_count,
                    "output": output if any(output.values()) else None,
                    "adapters": [
                        {"name": name, "scale": scale} for name, scale in event.adapters.items()
                    ],
                }
            }
        case Image():
            fields = asdict(event)
            data = fields.pop("data")
            header = {**fields, "size_bytes": len(data)}
            return {"image": header, "received": hashlib.sha256(data).hexdigest()}
        case Preview():
            return {"preview": {**asdict(event), "data": base64.b64encode(event.data).decode()}}
        case Queued():
            return {"queued": _durations(asdict(event))}
        case ModelLoading():
            return {"model_loading": _durations(asdict(event))}
        case Restarted():
            return {"restarted": asdict(event)}
        case Progress():
            return {"progress": _durations(asdict(event))}
        case Completed():
            return {"completed": _completed(event)}


def _completed(event: Completed) -> dict[str, Any]:
    return {
        "timings": _durations(asdict(event.timings)),
        "step_count": event.step_count,
        "batch_widths": [
            {"image_count": width, "forward_count": count}
            for width, count in event.batch_widths.items()
        ],
        "cache": enum_name("CACHE_STATUS", event.cache),
        "usage": None if event.usage is None else _durations(asdict(event.usage)),
        "restart_count": event.restart_count,
        "reused_forward_count": event.reused_forward_count,
    }


def model_line(model: Model) -> dict[str, Any]:
    """Return the JSON of a model."""
    known = model.capabilities
    fields: dict[str, Any] = {
        "name": model.name,
        "revision": model.revision,
        "is_default": model.is_default,
        "state": enum_name("MODEL_STATE", model.state),
    }
    if known is not None:
        fields["capabilities"] = {**asdict(known), "defaults": _parameters(known.defaults)}
    return fields


def error_line(error: SafelightError) -> dict[str, Any]:
    """Return the line of a failure."""
    if not isinstance(error, ServiceError):
        return {"error": {"code": "PROTOCOL", "message": str(error)}}
    delay_s = error.retry_after_s
    return {
        "error": {
            "code": error.code.name,
            "reason": error.reason,
            "message": str(error),
            "violations": [asdict(violation) for violation in error.violations],
            "retry_after_ms": None if delay_s is None else round(delay_s * 1e3),
        }
    }


def _parameters(parameters: Parameters) -> dict[str, Any]:
    return {name: value for name, value in asdict(parameters).items() if value is not None}


def _durations(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with the durations of protobuf JSON in place of seconds."""
    return {
        name.removesuffix("_s"): f"{value:.9f}s" if name.endswith("_s") else value
        for name, value in fields.items()
        if value is not None
    }


def enum_name(prefix: str, value: str) -> str:
    """Return the contract's name of an enum's value."""
    name = "UNSPECIFIED" if value == "unknown" else value.upper().replace(" ", "_")
    return f"{prefix}_{name}"
