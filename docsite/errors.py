"""Errors: the reference of the service's errors, as each kind of caller sees them."""

import inspect
from collections.abc import Iterator

import grpc
from google.rpc import code_pb2
from safelight.cli.exits import exit_code_of
from safelight.errors import ERROR_TYPES

from docsite.markdown import code, table
from safelight_gateway.errors import from_service
from safelight_service.core.errors import RetryableError, SafelightError
from safelight_service.grpc_server.status import TABLE

_INTRODUCTION = """\
---
hide:
  - toc
---

# Errors

Each failed call of the service has one of these causes. Its status carries the reason in
`google.rpc.ErrorInfo`, with the domain `safelight`. Reasons are stable: see
[what may change](../contract.md#what-may-change). Where a retry helps, `google.rpc.RetryInfo`
gives the time to wait.

The columns on the right show the same error to users of the Python client, of the HTTP gateway and
of the command `safelight`. [Troubleshooting](../troubleshooting.md) has remedies."""

_WITHOUT_REASON = """\
## Without a reason

gRPC, a proxy or the caller's own library ends some calls. Such a status has no `ErrorInfo`."""

_CALLERS = ("Python", "HTTP", "exit code")


def render() -> str:
    """Return the page of all errors."""
    header = (
        "reason, and class in the service",
        "gRPC status",
        "cause",
        "retry",
        "Python",
        "HTTP",
        "exit code",
    )
    reasons = table(header, sorted(_reasons()))
    others = table(("gRPC status", "Python", "HTTP", "exit code"), _codes())
    return f"{_INTRODUCTION}\n\n{reasons}\n\n{_WITHOUT_REASON}\n\n{others}\n"


def _reasons() -> Iterator[tuple[str, ...]]:
    for kind, row in TABLE.items():
        status = code_pb2.Code.Name(row.code)
        retry = "after `RetryInfo`" if issubclass(kind, RetryableError) else "no"
        seen = _as_seen_by_callers(grpc.StatusCode[status], row.reason)
        name = f"{code(row.reason)}<br>{kind.__name__}"
        yield name, code(status), _cause(kind), retry, *seen


def _codes() -> Iterator[tuple[str, ...]]:
    for status, reason in ERROR_TYPES:
        if reason is None:
            yield code(status.name), *_as_seen_by_callers(status, None)


def _as_seen_by_callers(status: grpc.StatusCode, reason: str | None) -> tuple[str, str, str]:
    """Return the exception of the client, the status of the gateway, and the exit code."""
    kind = ERROR_TYPES[status, reason]
    error = kind("", code=status, reason=reason)
    name = f"[`{kind.__name__}`](python.md#safelight.{kind.__name__})"
    return name, str(from_service(error).status), str(int(exit_code_of(error)))


def _cause(kind: type[SafelightError]) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]
