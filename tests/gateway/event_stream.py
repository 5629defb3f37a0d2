"""Server-sent events of the native routes."""

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.gateway.http_call import opened


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream."""

    kind: str
    id: str | None
    data: dict[str, Any]


def read_events(response: http.client.HTTPResponse) -> Iterator[ServerSentEvent]:
    """Yield the events of a stream as they arrive."""
    assert response.status == 200, response.read()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    fields: dict[str, str] = {}
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield ServerSentEvent(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


def generate(
    url: str, request: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> list[ServerSentEvent]:
    """Return all events of a generation."""
    with opened(url, "POST", request, headers) as response:
        return list(read_events(response))
