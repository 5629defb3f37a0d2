"""A call: one HTTP request, with its body."""

import json
import math
import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request

from safelight_gateway.edge.middleware import ADDRESS, BASE_URL, REQUEST_ID
from safelight_gateway.errors import GatewayError, bad_request, invalid_field
from safelight_gateway.generation.request import CallContext
from safelight_gateway.state import AppState

_METADATA = re.compile(r"[ -~]+")
"""Values that gRPC accepts as metadata."""

_DURATION = re.compile(
    r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})s?)?", re.ASCII
)
_PASSED_HEADERS = ("traceparent", "tracestate", "baggage", "x-generation-id")
"""Passed on as they are: the trace, and the id by which a proxy finds a generation's service."""
_FLAGS = ("x-use-cache", "x-wait-for-model")
_TRUE, _FALSE = ("1", "true"), ("0", "false")


@dataclass(frozen=True)
class Call:
    """One HTTP request.

    Attributes:
        state: State of the application.
        request: Starlette's request; its body is consumed.
        body: The whole body.
    """

    state: AppState
    request: Request
    body: bytes

    @property
    def headers(self) -> Headers:
        """Headers of the request."""
        return self.request.headers

    @property
    def base_url(self) -> str:
        """URL of the gateway as the caller sees it, with prefix, without a trailing slash."""
        return str(self.request.scope[BASE_URL])

    @property
    def request_id(self) -> str:
        """Id of the request, from the caller or generated."""
        return str(self.request.scope[REQUEST_ID])

    @property
    def context(self) -> CallContext:
        """Token, metadata and deadline for calls to the service.

        Raises:
            GatewayError: the token or the deadline is malformed.
        """
        metadata = [
            (name, self.headers[name])
            for name in _PASSED_HEADERS
            if _METADATA.fullmatch(self.headers.get(name, ""))
        ]
        return CallContext(
            credential=self._credential(),
            address=self.request.scope[ADDRESS],
            metadata=(*metadata, ("x-request-id", self.request_id)),
            deadline_s=self._deadline_s(),
        )

    @property
    def flag_metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata of a generation: whether to use the cache, and to wait for the model.

        Raises:
            GatewayError: a header is not a boolean.
        """
        flags = ((name, self.flag(name)) for name in _FLAGS)
        return tuple((name, str(flag).lower()) for name, flag in flags if flag is not None)

    async def identify(self) -> str:
        """Return the holder that the call counts for: its token, or else its address.

        Raises:
            GatewayError: the service refuses the token, or cannot be asked.
        """
        return await self.state.callers.identify(self.context)

    def json(self) -> dict[str, Any]:
        """Return the parsed body; only the first call parses it.

        Raises:
            GatewayError: the body is not a JSON object.
        """
        return self._fields

    def flag(self, name: str) -> bool | None:
        """Return a header as a boolean; None if absent.

        Raises:
            GatewayError: the header is not a boolean.
        """
        value = self.headers.get(name)
        return None if value is None else parse_flag(name, value)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        return parse_object(self.body)

    def _credential(self) -> str | None:
        header = self.headers.get("authorization", "").strip()
        if not header:
            return None
        credential = self.state.dialects.read_credential(header)
        if credential is None:
            raise GatewayError(
                401,
                "send a token of this service as Authorization: Bearer TOKEN",
                "UNAUTHENTICATED",
            )
        return credential

    def _deadline_s(self) -> float | None:
        for name in self.state.dialects.deadline_headers:
            value = self.headers.get(name)
            if value is None:
                continue
            timeout_s = _parse_duration(value)
            if not 0 < timeout_s < math.inf:
                raise invalid_field(name, f"must be a number of seconds, not {value!r}")
            return time.monotonic() + timeout_s
        return None


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        GatewayError: it is none, or has a name twice.
    """
    try:
        value = json.loads(body, object_pairs_hook=_object)
    except (ValueError, RecursionError):
        raise bad_request("the body must be JSON") from None
    if not isinstance(value, dict):
        raise bad_request("the body must be a JSON object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse a name that is there twice, since one value would be lost."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise invalid_field(name[:64], "is there twice; send it once")
            names.add(name)
    return value


def _parse_duration(text: str) -> float:
    """Return the seconds of a duration such as 90, 90s or 1m30s; NaN if it is none."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return math.nan
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_flag(name: str, value: object) -> bool:
    """Parse a boolean: 1, 0, true or false, in any case.

    Raises:
        GatewayError: the value is none of these.
    """
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise invalid_field(name, f"must be true or false, not {text!r}")
