"""Standard error that is unread or closed harms no call."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.generation_stream import wait_for
from support.running_service import READY, service_environment
from support.warm_process import WarmProcess

LONG = pb.GenerateRequest(
    inputs="a red circle",
    parameters=pb.TextToImageParameters(num_inference_steps=150, width=512, height=512),
)
TIMEOUT_S = 60


def open_full_pipe(path: Path) -> list[int]:
    """Make a named pipe that is full; return the descriptors that keep it so."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writer, True)
    return [reader, writer]


@contextmanager
def run_with_stderr(path: Path) -> Iterator[tuple[str, Any]]:
    """Run a service with all its log lines going to a path; yield its target and its process."""
    environment = service_environment({"SAFELIGHT_LOG_LEVEL": "debug"})
    command = ["safelight_service", "--listen", "127.0.0.1:0"]
    with WarmProcess(command, environment, str(path)) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith(READY)
            yield line.removeprefix(READY).strip(), process
        finally:
            process.kill()


@pytest.mark.parametrize("stderr", ["full", "without a reader"])
def test_all_goes_on(stderr: str, tmp_path: Path) -> None:
    path = tmp_path / "stderr"
    descriptors = open_full_pipe(path)
    with run_with_stderr(path) as (target, process), grpc.insecure_channel(target) as channel:
        if stderr == "without a reader":
            os.close(descriptors.pop(0))
        stub = pb_grpc.TextToImageServiceStub(channel)
        running = stub.Generate(LONG)
        generation_id = wait_for(running, "accepted").accepted.generation_id
        wait_for(running, "progress")
        cancelled = stub.CancelGeneration(
            pb.CancelGenerationRequest(generation_id=generation_id), timeout=TIMEOUT_S
        )
        assert cancelled.state == pb.GENERATION_STATE_CANCELLED
        with pytest.raises(grpc.RpcError) as raised:
            wait_for(running, "completed")
        assert raised.value.code() is grpc.StatusCode.CANCELLED
        health = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S
        )
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    for descriptor in descriptors:
        os.close(descriptor)


def test_a_usage_error_without_standard_error_keeps_its_code() -> None:
    command = ["bash", "-c", 'exec "$0" -m safelight_service --listen nowhere 2>&-', sys.executable]
    environment = service_environment({})
    assert subprocess.run(command, env=environment, check=False, timeout=60).returncode == 2
