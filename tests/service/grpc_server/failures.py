"""Failures: the rich status of a failed call."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb


@dataclass(frozen=True, slots=True)
class Failure:
    """Rich status: its code, the reason in its ErrorInfo, and whether it has a RetryInfo."""

    code: grpc.StatusCode
    reason: str
    is_retryable: bool


STOPPING = Failure(grpc.StatusCode.UNAVAILABLE, "STOPPING", is_retryable=True)
DEVICE_LOST = Failure(grpc.StatusCode.UNAVAILABLE, "DEVICE_LOST", is_retryable=True)
OUT_OF_MEMORY = Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "OUT_OF_MEMORY", is_retryable=False)

NON_FINITE_IMAGE = Failure(grpc.StatusCode.INTERNAL, "NON_FINITE_IMAGE", is_retryable=False)


def failure_of(events: Iterable[pb.GenerateResponse]) -> Failure:
    """Read a stream to its end, which must be a failure."""
    with pytest.raises(grpc.RpcError) as raised:
        list(events)
    return read_failure(raised.value)


def read_failure(error: grpc.RpcError) -> Failure:
    """Parse the rich status of a call."""
    assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
    status = rpc_status.from_call(cast(grpc.Call, error))
    assert status is not None, error
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    is_retryable = any(detail.Unpack(retry) for detail in status.details)
    return Failure(error.code(), info.reason, is_retryable)
