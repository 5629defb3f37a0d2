"""Unharmed: checks that a service has recovered from a fault."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.generation_stream import image_bytes
from support.running_service import RunningService, Usage

CONTROL = pb.GenerateRequest(
    inputs="a red circle",
    parameters=pb.TextToImageParameters(num_inference_steps=2, width=64, height=64, seed=1),
)
LONG = pb.GenerateRequest(
    inputs="a red circle",
    parameters=pb.TextToImageParameters(num_inference_steps=150, width=64, height=64, seed=2),
    image_count=4,
)
"""Runs for many more steps than the controls, so that controls would share its forwards."""

_Value = TypeVar("_Value")

_MAX_GROWTH_MIB = 64
_PATIENCE_S = 60


@contextmanager
def unharmed(service: RunningService) -> Iterator[pb_grpc.TextToImageServiceStub]:
    """Check that an otherwise idle service recovers from the actions of the block.

    Afterwards its process soon has no more threads and descriptors than before, and its memory has
    never grown by 64 MiB. A control generation shares no forward, so nothing else runs, and its
    image equals that from before, byte for byte.
    """
    with grpc.insecure_channel(service.target) as channel:
        stub = pb_grpc.TextToImageServiceStub(channel)
        expected = make_control(stub)
        service.forget_peak()
        before = service.read_usage()
        yield stub
        _wait_until_at_rest(service, before)
        assert is_serving(channel)
        assert make_control(stub) == expected
        assert service.read_usage().peak_mib - before.resident_mib < _MAX_GROWTH_MIB


def make_control(stub: pb_grpc.TextToImageServiceStub) -> bytes:
    """Repeat a control generation until nothing else runs alongside it; return its image."""
    # The service may not have noticed yet that a caller is gone.
    ends_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends_at:
        responses = list(stub.Generate(CONTROL, metadata=(("x-use-cache", "false"),)))
        completed = responses[-1].event.completed
        if {width.image_count for width in completed.batch_widths} == {1}:
            return image_bytes(responses)
    raise AssertionError("an abandoned generation still runs")


def exceeds(usage: Usage, before: Usage) -> bool:
    """Whether a process has more threads or descriptors than before."""
    return (
        usage.thread_count > before.thread_count or usage.descriptor_count > before.descriptor_count
    )


def _wait_until_at_rest(service: RunningService, before: Usage) -> None:
    """Wait until it holds no more than before; gRPC keeps threads for some time."""
    ends_at = time.monotonic() + _PATIENCE_S
    while exceeds(usage := service.read_usage(), before):
        assert time.monotonic() < ends_at, (
            f"the service still has {usage}, had {before}; threads: {service.name_threads()}"
        )
        with suppress(subprocess.TimeoutExpired):
            service.process.wait(0.1)
            raise AssertionError("the service has ended")


def is_serving(channel: grpc.Channel) -> bool:
    """Whether the health service reports SERVING."""
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    is_serving: bool = health.status == health_pb2.HealthCheckResponse.SERVING
    return is_serving


def wait_until(
    channel: grpc.Channel, read: Callable[[], _Value], is_right: Callable[[_Value], bool]
) -> None:
    """Poll `read` until `is_right` accepts its value, while the service stays healthy."""
    ends_at = time.monotonic() + _PATIENCE_S
    while not is_right(value := read()):
        assert is_serving(channel)
        assert time.monotonic() < ends_at, f"the value is still {value}"
