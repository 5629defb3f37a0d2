"""A call: one HTTP request with its body read."""

import json
import math
import re
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request

from safelight_gateway.edge.middleware import BASE_URL, REQUEST_ID
from safelight_gateway.errors import GatewayError, bad_request, invalid_field
from safelight_gateway.generation.request import CallContext
from safelight_gateway.state import AppState

_METADATA = re.compile(r"[ -~]+")
"""All that gRPC takes as the value of metadata."""

_TRACE_HEADERS = ("traceparent", "tracestate", "baggage")
_TRUE, _FALSE = ("1", "true"), ("0", "false")


@dataclass(frozen=True)
class Call:
    """One HTTP request.

    Attributes:
        state: What all routes share.
        request: As Starlette gives it.
        body: All of it.
    """

    state: AppState
    request: Request
    body: bytes

    @property
    def headers(self) -> Headers:
        """The request's headers."""
        return self.request.headers

    @property
    def base_url(self) -> str:
        """The gateway's URL as this caller sees it, prefix included, without a slash."""
        return str(self.request.scope[BASE_URL])

    @property
    def request_id(self) -> str:
        """Id of the request, the caller's or a new one."""
        return str(self.request.scope[REQUEST_ID])

    @property
    def context(self) -> CallContext:
        """What is passed on to the service beside the request.

        Raises:
            GatewayError: the token or the deadline cannot be read.
        """
        metadata = [
            (name, self.headers[name])
            for name in _TRACE_HEADERS
            if _METADATA.fullmatch(self.headers.get(name, ""))
        ]
        return CallContext(
            credential=self._credential(),
            metadata=(*metadata, ("x-request-id", self.request_id)),
            deadline_s=self._deadline_s(),
        )

    def json(self) -> dict[str, Any]:
        """Return the body, which is parsed on the first call only.

        Raises:
            GatewayError: it is no JSON object.
        """
        return self._fields

    def flag(self, name: str) -> bool | None:
        """Return a header that is a boolean, read loosely; None if it is not there.

        Raises:
            GatewayError: it is no boolean.
        """
        value = self.headers.get(name)
        return None if value is None else parse_flag(name, value)

    @cached_property
    def _fields(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            raise bad_request("the body must be JSON") from None
        if not isinstance(value, dict):
            raise bad_request("the body must be a JSON object")
        return value

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
            try:
                timeout_s = float(value)
            except ValueError:
                timeout_s = math.nan
            if not 0 < timeout_s < math.inf:
                raise invalid_field(name, f"must be a number of seconds, not {value!r}")
            return time.monotonic() + timeout_s
        return None


def parse_flag(name: str, value: object) -> bool:
    """Read a boolean, loosely: 1, 0, true or false in any case.

    Raises:
        GatewayError: the value is none of these.
    """
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise invalid_field(name, f"must be true or false, not {text!r}")
