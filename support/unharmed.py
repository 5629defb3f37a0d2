"""What must be true of a service again after any fault."""

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
"""Makes many times the steps that the controls make, which would share its forwards."""

_Value = TypeVar("_Value")

_MAX_GROWTH_MIB = 64
_PATIENCE_S = 60


@contextmanager
def unharmed(service: RunningService) -> Iterator[pb_grpc.TextToImageServiceStub]:
    """Do something to a service that has nothing else to do, and hold it to what follows.

    Its process soon has no more threads and descriptors than before; its memory never grew by
    64 MiB; the device is free, so that a control generation shares forwards with nothing; and the
    image of that one is to the byte what it was before.
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
    """Return the image of a control generation beside which nothing else is made."""
    # The service may still be about to learn that a caller is gone.
    ends_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < ends_at:
        responses = list(stub.Generate(CONTROL, metadata=(("x-use-cache", "false"),)))
        completed = responses[-1].event.completed
        if {width.image_count for width in completed.batch_widths} == {1}:
            return image_bytes(responses)
    raise AssertionError("something else is made, which nobody has asked for")


def exceeds(usage: Usage, before: Usage) -> bool:
    """Whether a process has more threads or descriptors than before."""
    return (
        usage.thread_count > before.thread_count or usage.descriptor_count > before.descriptor_count
    )


def _wait_until_at_rest(service: RunningService, before: Usage) -> None:
    """Leave it alone until it holds no more than before: gRPC keeps threads that have work."""
    ends_at = time.monotonic() + _PATIENCE_S
    while exceeds(usage := service.read_usage(), before):
        assert time.monotonic() < ends_at, (
            f"it still has {usage}, and had {before}; threads: {service.name_threads()}"
        )
        with suppress(subprocess.TimeoutExpired):
            service.process.wait(0.1)
            raise AssertionError("it has ended")


def is_serving(channel: grpc.Channel) -> bool:
    """Whether the service's health says so."""
    health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    is_serving: bool = health.status == health_pb2.HealthCheckResponse.SERVING
    return is_serving


def wait_until(
    channel: grpc.Channel, read: Callable[[], _Value], is_right: Callable[[_Value], bool]
) -> None:
    """Ask for the service's health until what is read is right."""
    ends_at = time.monotonic() + _PATIENCE_S
    while not is_right(value := read()):
        assert is_serving(channel)
        assert time.monotonic() < ends_at, f"it is still {value}"
