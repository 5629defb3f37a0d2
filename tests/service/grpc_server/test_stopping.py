"""Stopping, by SIGTERM or after a lost device: callers learn when to retry, then all ends."""

import json
import signal
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.generation_stream import wait_for
from support.running_service import RunningService, run_service, service_environment
from support.warm_process import WarmProcess
from tests.service.grpc_server.failures import DEVICE_LOST, STOPPING, failure_of, read_failure

LONG = pb.GenerateRequest(
    inputs="a red circle",
    parameters=pb.TextToImageParameters(num_inference_steps=150, width=512, height=512),
)
"""A generation that takes far longer than any test; a deadline would end it early."""

SHORT = pb.GenerateRequest(inputs="a red circle")
COLD = json.dumps([{"name": "shapes", "source": "shapes", "warm_up": False}])
FAULTY_SERVICE = "tests.service.grpc_server.faulty_service"
ALONE = json.dumps({"max_width": 1})
FOR_EVER = "3600"
TIMEOUT_S = 60


def watch_health(channel: grpc.Channel) -> Any:
    """Yield the health of the server as it changes."""
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())


def wait_until_not_serving(watch: Any) -> None:
    assert any(health.status == health_pb2.HealthCheckResponse.NOT_SERVING for health in watch)
    watch.cancel()


def request_stop(service: RunningService, channel: grpc.Channel) -> None:
    """Send SIGTERM, and return once the health status shows it."""
    service.process.send_signal(signal.SIGTERM)
    wait_until_not_serving(watch_health(channel))


def test_what_runs_goes_on_and_all_else_is_refused() -> None:
    """Fault 38: SIGTERM while one generation runs and another waits."""
    with (
        run_service(batching=ALONE, grace_s=FOR_EVER) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        stub = pb_grpc.TextToImageServiceStub(channel)
        running = stub.Generate(LONG)
        wait_for(running, "progress")
        waiting = stub.Generate(LONG)
        wait_for(waiting, "queued")
        request_stop(service, channel)
        assert failure_of(waiting) == STOPPING
        assert failure_of(stub.Generate(LONG)) == STOPPING
        with pytest.raises(grpc.RpcError) as raised:
            stub.ListModels(pb.ListModelsRequest())
        assert read_failure(raised.value) == STOPPING
        wait_for(running, "progress")
        running.cancel()
        assert service.process.wait(timeout=TIMEOUT_S) == 0


def test_a_running_generation_finishes() -> None:
    """Fault 38: SIGTERM during a short generation."""
    with (
        run_service(grace_s=FOR_EVER) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        events = pb_grpc.TextToImageServiceStub(channel).Generate(SHORT, timeout=TIMEOUT_S)
        wait_for(events, "progress")
        code = service.stop()
        wait_for(events, "completed")
        assert code == 0


def test_generations_unfinished_in_the_grace_time_are_unavailable() -> None:
    """Fault 38: SIGTERM during a long generation ends it with UNAVAILABLE, not CANCELLED."""
    with (
        run_service(grace_s="0.2") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        events = pb_grpc.TextToImageServiceStub(channel).Generate(LONG)
        wait_for(events, "progress")
        assert service.stop() == 0
        assert failure_of(events) == STOPPING


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_idle_service_ends_at_once(number: signal.Signals) -> None:
    """Fault 38: there is nothing to wait for, however long the grace time."""
    with run_service(grace_s=FOR_EVER) as service:
        service.process.send_signal(number)
        assert service.process.wait(timeout=TIMEOUT_S) == 0


def test_a_service_that_still_loads_its_models_ends_at_once(tmp_path: Path) -> None:
    """Fault 38: SIGTERM before the service is ready."""
    command = [FAULTY_SERVICE, "hang-while-loading", "--listen", "127.0.0.1:0"]
    log = tmp_path / "log"
    log.touch()
    with WarmProcess(command, service_environment({}), str(log)) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=TIMEOUT_S) == 0


def test_a_second_sigterm_ends_the_service_at_once() -> None:
    """Fault 39: the second signal skips the grace time, as the exit code shows."""
    with (
        run_service(grace_s=FOR_EVER) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        events = pb_grpc.TextToImageServiceStub(channel).Generate(LONG)
        wait_for(events, "progress")
        request_stop(service, channel)
        assert service.stop() == 1


@pytest.mark.parametrize("fault", ["lose-device", "hang"])
def test_a_lost_device_ends_the_service_for_its_supervisor_to_restart_it(fault: str) -> None:
    """Fault 32 and 34: a sticky error of the device, and a device call that does not return."""
    with (
        run_service(FAULTY_SERVICE, fault, models=COLD, step_timeout_s="2") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        health = watch_health(channel)
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        stub = pb_grpc.TextToImageServiceStub(channel)
        generations = [stub.Generate(SHORT, timeout=TIMEOUT_S) for _ in range(2)]
        assert [failure_of(events) for events in generations] == [DEVICE_LOST] * 2
        wait_until_not_serving(health)
        assert service.process.wait(timeout=TIMEOUT_S) == 1
