"""The records: events, models and errors as lines of JSON, for `--json`."""

import json
import re
from dataclasses import asdict

from safelight.errors import SafelightError, ServiceError
from safelight.events import Event
from safelight.models import Model


def event_record(event: Event, path: str | None) -> str:
    """Return an event as a line of JSON: its name, its fields except bytes, and its file."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(event).__name__).lower()
    fields = {key: value for key, value in asdict(event).items() if key != "data"}
    if path is not None:
        fields["path"] = path
    return json.dumps({"event": name, **fields})


def error_record(error: SafelightError) -> str:
    """Return an error as a line of JSON, the last of a failed generation."""
    record: dict[str, object] = {"event": "error", "message": str(error)}
    if isinstance(error, ServiceError):
        record |= {
            "code": error.code.name,
            "reason": error.reason,
            "violations": [asdict(violation) for violation in error.violations],
            "retry_after_s": error.retry_after_s,
        }
    return json.dumps(record)


def model_record(model: Model) -> str:
    """Return a model as a line of JSON."""
    return json.dumps(asdict(model))
