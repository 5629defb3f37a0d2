"""Access: an interceptor that admits only calls with a known token."""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from safelight_service.auth.tokens import Caller, Tokens, current_caller
from safelight_service.core.errors import UnauthenticatedError
from safelight_service.core.observer import NULL_OBSERVER, Observer
from safelight_service.grpc_server.interceptors.errors import refuse
from safelight_service.grpc_server.interceptors.open_calls import log_refusal
from safelight_settings import LineLimit

_HEALTH = f"/{health_pb2.DESCRIPTOR.services_by_name['Health'].full_name}/"
_BEARER = re.compile(r" *bearer:? +([!-~]+) *", re.IGNORECASE)
"""Accepts a colon after the scheme, as the schema of the Hugging Face task has it."""


class AccessInterceptor(grpc.aio.ServerInterceptor):
    """Sets `current_caller` for each call or refuses it; health needs no token."""

    def __init__(self, tokens: Tokens, observer: Observer = NULL_OBSERVER) -> None:
        self._tokens = tokens
        self._observer = observer
        self._lines = LineLimit(max_count=1)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Authenticate the caller before the service reads any part of the call."""
        if not handler_call_details.method.startswith(_HEALTH):
            try:
                # Each call has its own task, and so its own value.
                current_caller.set(self._find_caller(handler_call_details.invocation_metadata))
            except UnauthenticatedError as error:
                log_refusal(error, self._lines)
                return refuse(error, self._observer)
            except Exception as error:
                return refuse(error, self._observer)
        return await continuation(handler_call_details)

    def _find_caller(self, metadata: Iterable[tuple[str, str | bytes]]) -> Caller:
        values = [str(value) for key, value in metadata if key == "authorization"]
        match = _BEARER.fullmatch(values[0]) if len(values) == 1 else None
        caller = self._tokens.find(match[1]) if match else None
        if caller is None:
            raise UnauthenticatedError
        return caller
