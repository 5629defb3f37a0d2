"""Errors: those of the gateway and of the service as Connect's, with their `google.rpc` details."""

import logging
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from connectrpc.code import Code
from connectrpc.errors import ConnectError, ErrorDetail
from google.protobuf.any_pb2 import Any as GoogleAny
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from protobuf.wkt import Any
from safelight import SafelightError, ServiceError
from safelight.errors import details_of

from safelight_gateway.errors import GatewayError, from_service

_DOMAIN = "safelight"
_CODES = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    413: Code.RESOURCE_EXHAUSTED,
    422: Code.INVALID_ARGUMENT,
    429: Code.RESOURCE_EXHAUSTED,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}
"""Connect's code for each HTTP status of the gateway's own errors; INTERNAL for all others."""

_log = logging.getLogger("safelight_gateway")


@contextmanager
def connect_errors() -> Iterator[None]:
    """Turn all errors in this block into Connect's.

    Raises:
        ConnectError: something failed. The text of an unexpected exception only reaches the log.
    """
    try:
        yield
    except ConnectError:
        raise
    except GatewayError as error:
        raise _from_gateway(error) from error
    except SafelightError as error:
        raise _from_service(error) from error
    except Exception as error:
        error_id = uuid.uuid4().hex
        _log.exception("internal error, id=%s", error_id)
        message = f"internal error, id={error_id}"
        raise _from_gateway(GatewayError(500, message, "INTERNAL")) from error


def _from_service(error: SafelightError) -> ConnectError:
    """Keep the service's details. A broken stream gets none, by which callers know it."""
    known = from_service(error)
    if not isinstance(error, ServiceError):
        return _from_gateway(known)
    code = Code[error.code.name.replace("CANCELLED", "CANCELED")]
    return ConnectError(code, known.message, _repack(details_of(error)))


def _from_gateway(error: GatewayError) -> ConnectError:
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=_DOMAIN)
    details: list[Message] = [info]
    if error.violations:
        fields = error_details_pb2.BadRequest()
        for violation in error.violations:
            fields.field_violations.add(field=violation.field, description=violation.description)
        details.append(fields)
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after_s * 1e3))
        details.append(retry)
    packed = [GoogleAny() for _ in details]
    for box, detail in zip(packed, details, strict=True):
        box.Pack(detail)
    return ConnectError(_CODES.get(error.status, Code.INTERNAL), error.message, _repack(packed))


def _repack(details: Iterable[GoogleAny]) -> list[ErrorDetail]:
    """Return details of `google.protobuf` in the messages of connectrpc's own library."""
    return [ErrorDetail(Any(type_url=each.type_url, value=each.value)) for each in details]
