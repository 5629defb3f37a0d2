"""A full queue, and a model that loads on demand, each on its own service."""

import json
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.generation_stream import kinds, wait_for
from support.running_service import run_service
from support.unharmed import CONTROL, is_serving, unharmed

ONE = pb.GenerateRequest(
    inputs="a red circle",
    parameters=pb.TextToImageParameters(num_inference_steps=60, width=64, height=64),
)
"""A generation that outlasts the refusal of a call."""

ALONE = json.dumps({"max_width": 1, "order": "first_come"})
WAITS = (("x-wait-for-model", "true"),)


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, float | None]:
    """Return the code, and the seconds of the RetryInfo, if there is one."""
    assert isinstance(error, grpc.Call)
    status = rpc_status.from_call(error)
    assert status is not None
    retry = error_details_pb2.RetryInfo()
    has_retry = any(detail.Unpack(retry) for detail in status.details)
    return error.code(), retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    """Fault 27 and 28: 50 calls, of which one runs and 4 wait; health answers meanwhile."""
    with (
        run_service(queue_size="4", batching=ALONE) as service,
        unharmed(service) as stub,
        grpc.insecure_channel(service.target) as channel,
        ThreadPoolExecutor(49) as threads,
    ):
        running = stub.Generate(ONE)
        wait_for(running, "progress")

        def call(_: int) -> str | tuple[grpc.StatusCode, float | None]:
            try:
                return kinds(stub.Generate(CONTROL))[-1]
            except grpc.RpcError as error:
                return status_of(error)

        ended = as_completed([threads.submit(call, number) for number in range(49)])
        refusals = [next(ended).result() for _ in range(45)]
        assert is_serving(channel)
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING
        health.cancel()
        for refusal in refusals:
            assert isinstance(refusal, tuple)
            code, retry_after_s = refusal
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert retry_after_s
        assert kinds(running)[-1] == "completed"
        assert [each.result() for each in ended] == ["completed"] * 4


def test_a_model_that_is_not_preloaded_is_loaded_on_demand() -> None:
    """Fault 37: UNAVAILABLE with RetryInfo, or signs of life for a caller that waits."""
    models = json.dumps([{"name": "lazy", "source": "shapes", "preload": False}])
    with run_service(models=models) as service, grpc.insecure_channel(service.target) as channel:
        stub = pb_grpc.TextToImageServiceStub(channel)
        model = stub.GetModel(pb.GetModelRequest()).model
        assert model.state == pb.MODEL_STATE_NOT_LOADED
        assert not model.HasField("capabilities")

        quick = pb.GenerateRequest(
            inputs="a red circle", parameters=pb.TextToImageParameters(num_inference_steps=1)
        )
        with pytest.raises(grpc.RpcError) as raised:
            list(stub.Generate(quick))
        code, retry_after_s = status_of(raised.value)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert retry_after_s

        events = kinds(stub.Generate(quick, metadata=WAITS))
        assert (events[0], events[-1]) == ("model_loading", "completed")
        assert stub.GetModel(pb.GetModelRequest()).model.state == pb.MODEL_STATE_READY


def test_a_model_that_cannot_be_loaded_fails_its_own_calls_only(tmp_path: Path) -> None:
    """Fault 37: FAILED_PRECONDITION."""
    models = json.dumps(
        [
            {"name": "good", "source": "shapes"},
            {"name": "broken", "source": str(tmp_path), "preload": False},
        ]
    )
    with run_service(models=models) as service, grpc.insecure_channel(service.target) as channel:
        stub = pb_grpc.TextToImageServiceStub(channel)
        for _ in range(2):  # each call tries again
            with pytest.raises(grpc.RpcError) as raised:
                list(stub.Generate(pb.GenerateRequest(inputs="x", model="broken"), metadata=WAITS))
            assert status_of(raised.value) == (grpc.StatusCode.FAILED_PRECONDITION, None)
            assert str(tmp_path) not in str(raised.value)
        broken = stub.GetModel(pb.GetModelRequest(model="broken")).model
        assert broken.state == pb.MODEL_STATE_FAILED
        good = pb.GenerateRequest(
            inputs="a red circle", parameters=pb.TextToImageParameters(num_inference_steps=1)
        )
        assert kinds(stub.Generate(good))[-1] == "completed"
