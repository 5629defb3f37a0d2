"""The command `safelight-service`, as an operator types it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import grpc
import pytest
from safelight.v1 import text_to_image_pb2 as pb
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

import safelight_service
from safelight_service.server.probe import is_serving
from safelight_service.tokens import Tokens
from tests.running_service import RunningService, run_service, service_environment


def run_command(
    *arguments: str, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "safelight_service", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=service_environment(settings or {}),
    )


def test_version_is_that_of_the_package() -> None:
    result = run_command("--version")
    assert result.stdout == f"safelight-service {safelight_service.__version__}\n"


def test_a_mistyped_setting_is_a_usage_error() -> None:
    result = run_command(settings={"SAFELIGHT_QUEUESIZE": "3"})
    assert result.returncode == 2
    assert "did you mean SAFELIGHT_QUEUE_SIZE?" in result.stderr


def test_a_bad_value_is_a_usage_error_that_names_the_setting() -> None:
    result = run_command("--listen", "nowhere")
    assert result.returncode == 2
    assert "listen: must be HOST:PORT with a port from 0 to 65535, not 'nowhere'" in result.stderr


def test_an_address_that_others_reach_is_refused_without_tokens() -> None:
    result = run_command("--listen", "0.0.0.0:0")
    assert result.returncode == 2
    assert "set tokens_file or tls.client_authorities" in result.stderr


def test_a_token_is_shown_once_beside_its_entry_for_the_tokens_file(tmp_path: Path) -> None:
    result = run_command("token", "billing")
    assert result.returncode == 0
    file = tmp_path / "tokens.toml"
    file.write_text(result.stdout)
    caller = Tokens(file, []).find(result.stderr.strip())
    assert caller is not None
    assert caller.name == "billing"
    assert len(result.stderr.strip()) == 43


def test_a_token_needs_a_name_that_can_be_written_anywhere() -> None:
    result = run_command("token", 'a"b')
    assert result.returncode == 2
    assert "name: String should match" in result.stderr


def test_a_port_that_is_taken_is_an_error(service: RunningService) -> None:
    result = run_command("--listen", service.target)
    assert result.returncode == 1
    assert f"cannot listen on {service.target}: the port is taken" in result.stderr


def test_a_model_that_cannot_be_loaded_stops_the_start() -> None:
    models = '[{"name": "broken", "source": "/nonexistent/folder"}]'
    result = run_command("--listen", "127.0.0.1:0", settings={"SAFELIGHT_MODELS": models})
    assert result.returncode == 1
    assert "model 'broken' cannot be loaded" in result.stderr
    assert "ready" not in result.stdout


def test_a_running_service_answers_the_probe(service: RunningService) -> None:
    assert is_serving(service.target)
    assert not is_serving("127.0.0.1:1")


def test_sigterm_lets_a_running_generation_finish() -> None:
    with run_service() as service, grpc.insecure_channel(service.target) as channel:
        stub = pb_grpc.TextToImageServiceStub(channel)
        events = stub.Generate(pb.GenerateRequest(inputs="a red circle"))
        kinds = [next(events).WhichOneof("event")]
        code = service.stop()
        kinds += [event.WhichOneof("event") for event in events]
        assert code == 0
        assert kinds[-1] == "completed"


def test_sigterm_ends_what_does_not_finish_in_the_grace_time() -> None:
    with (
        run_service(grace_s="0.2") as service,
        grpc.insecure_channel(service.target) as channel,
    ):
        parameters = pb.TextToImageParameters(num_inference_steps=150, width=512, height=512)
        long = pb.GenerateRequest(inputs="a red circle", parameters=parameters, image_count=8)
        events = pb_grpc.TextToImageServiceStub(channel).Generate(long)
        next(events)
        assert service.stop() == 0
        with pytest.raises(grpc.RpcError) as raised:
            list(events)
        assert isinstance(raised.value, grpc.Call)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
