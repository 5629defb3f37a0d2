"""Fairness between tokens: one that floods the service does not take it from another."""

import json
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from safelight_service.auth.tokens import digest_token
from support.generation_stream import kinds, wait_for
from support.running_service import run_service

FLOOD = (("authorization", "Bearer flood"),)
OTHER = (("authorization", "Bearer other"),)


def request(step_count: int, image_count: int = 1) -> pb.GenerateRequest:
    return pb.GenerateRequest(
        inputs="a red circle",
        parameters=pb.TextToImageParameters(num_inference_steps=step_count, width=64, height=64),
        image_count=image_count,
    )


def test_a_token_that_fills_the_queue_leaves_another_its_share(tmp_path: Path) -> None:
    """The newest waiting call makes room, and the other token's runs beside those before it."""
    file = tmp_path / "tokens.toml"
    file.write_text(
        "".join(
            f'[[tokens]]\nname = "{name}"\nsha256 = "{digest_token(name)}"\n'
            for name in ("flood", "other")
        )
    )
    with (
        run_service(
            queue_size="3", batching=json.dumps({"max_width": 1}), tokens_file=str(file)
        ) as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        stub = pb_grpc.TextToImageServiceStub(channel)
        running = stub.Generate(request(150, image_count=8), metadata=FLOOD)
        wait_for(running, "progress")
        waiting = [stub.Generate(request(150), metadata=FLOOD) for _ in range(3)]
        for call in waiting:
            wait_for(call, "queued")
        for _ in range(3):
            assert kinds(stub.Generate(request(2), metadata=OTHER))[-1] == "completed"
        assert running.is_active()
        with pytest.raises(grpc.RpcError) as raised:
            list(waiting[-1])
        assert isinstance(raised.value, grpc.Call)
        status = rpc_status.from_call(raised.value)
        assert status is not None
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert status.details[0].Unpack(info)
        assert info.reason == "QUEUE_FULL"
        assert status.details[1].Unpack(retry)
        assert retry.retry_delay.ToNanoseconds()
        for call in (running, *waiting):
            call.cancel()
