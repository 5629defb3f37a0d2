"""The command line, run in this process against a service that plays scripts."""

import errno
import io
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import PIL.Image
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from safelight.cli import main
from safelight.cli.exits import exit_code_of
from safelight.errors import ERROR_TYPES, ProtocolError
from safelight.v1 import text_to_image_pb2 as pb

from safelight_service.core import errors
from safelight_service.grpc_server.status import to_status
from tests.client.scripted_service import (
    ScriptedService,
    accepted,
    chunk,
    completed,
    failure,
    header,
    image,
    png,
    progress,
    status,
    whole_generation,
)


@dataclass(frozen=True)
class Result:
    """What a run of the command line left."""

    code: object
    stdout: bytes
    stderr: str

    @property
    def records(self) -> list[dict[str, object]]:
        """The lines of JSON that it printed."""
        return [json.loads(line) for line in self.stdout.splitlines()]


Cli = Callable[..., Result]


@pytest.fixture
def cli(
    scripted: ScriptedService,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
) -> Cli:
    """Runs the command line in an empty folder, against the scripted service."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFELIGHT_TARGET", scripted.target)
    monkeypatch.delenv("SAFELIGHT_TOKEN", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["safelight", *arguments])
        with pytest.raises(SystemExit) as exited:
            main()
        stdout, stderr = capsysbinary.readouterr()
        return Result(exited.value.code, stdout, stderr.decode())

    return run


def test_image_is_written_and_its_name_printed(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    result = cli("generate", "a red circle", "-o", "out.png")
    assert (result.code, result.stdout) == (0, b"out.png\n")
    assert Path("out.png").read_bytes() == png()
    assert list(Path().iterdir()) == [Path("out.png")]


def test_name_of_the_file_defaults_to_the_seed(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    assert cli("generate", "a red circle").stdout == b"safelight-7.png\n"


def test_default_name_never_replaces_a_file(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    cli("generate", "a red circle")
    assert cli("generate", "a red circle").stdout == b"safelight-7-2.png\n"


def test_several_images_are_numbered(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(accepted(2), image(0), image(1), completed())
    result = cli("generate", "a red circle", "-o", "out.png", "--count", "2")
    assert result.stdout == b"out-0.png\nout-1.png\n"


def test_suffix_of_the_file_is_the_format(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    cli("generate", "a red circle", "-o", "out.JPG", "--quality", "80")
    assert scripted.requests[0].output == pb.OutputOptions(mime_type="image/jpeg", quality=80)


def test_dash_writes_the_image_to_standard_output(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    result = cli("generate", "a red circle", "-o", "-")
    assert PIL.Image.open(io.BytesIO(result.stdout)).size == (16, 16)


def test_options_arrive_in_their_fields(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    cli(
        *("generate", "a red circle", "--steps", "5", "--seed", "0", "--width", "64"),
        *("--height", "128", "--guidance-scale", "0", "--negative-prompt", "blue"),
        *("--scheduler", "euler", "--model", "shapes", "--no-wait-for-model"),
        *("--adapter", "ink:0.5", "--adapter", "oil"),
    )
    request = scripted.requests[0]
    assert (request.inputs, request.model) == ("a red circle", "shapes")
    assert list(request.adapters) == [
        pb.AdapterUse(name="ink", scale=0.5),
        pb.AdapterUse(name="oil"),
    ]
    assert request.parameters == pb.TextToImageParameters(
        guidance_scale=0,
        negative_prompt="blue",
        num_inference_steps=5,
        width=64,
        height=128,
        scheduler="euler",
        seed=0,
    )
    assert not request.preview.interval_steps
    assert scripted.metadata["x-wait-for-model"] == "false"


def test_log_has_a_line_for_each_phase(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    assert cli("generate", "a red circle").stderr.splitlines() == [
        "loading shapes, for 2 s",
        "waiting at position 2",
        "waiting at position 1, about 2 s",
        "step 1/4, 2.0 it/s, 2 s left",
        "step 2/4, 2.0 it/s, 1 s left",
        "step 3/4, 2.0 it/s, 0 s left",
        "step 4/4, 2.0 it/s, 0 s left",
        "done, 4 steps in 2.0 s, seed 7",
    ]


def test_log_has_a_line_for_each_quarter_of_many_steps(scripted: ScriptedService, cli: Cli) -> None:
    steps = (progress(step, 100) for step in range(1, 101))
    scripted.play(accepted(step_count=100), steps, image(), completed())
    lines = cli("generate", "a red circle").stderr.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        *("step 1/100", "step 25/100", "step 50/100", "step 75/100", "step 100/100", "done"),
    ]


def test_quiet_prints_the_name_of_the_file_only(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    result = cli("generate", "a red circle", "-q", "-o", "out.png")
    assert (result.stdout, result.stderr) == (b"out.png\n", "")


def test_image_that_the_safety_checker_blackened_is_reported(
    scripted: ScriptedService, cli: Cli
) -> None:
    announcement = header(png())
    announcement.event.image.is_flagged = True
    scripted.play(accepted(), announcement, chunk(png()), completed())
    assert "image 0 is black" in cli("generate", "a red circle").stderr


def test_json_is_a_line_for_each_event_without_bytes(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(whole_generation())
    records = cli("generate", "a red circle", "--json", "-o", "out.png").records
    assert [record["event"] for record in records[:4]] == [
        *("model_loading", "accepted", "queued", "queued"),
    ]
    assert records[4] == {
        "event": "progress",
        "step": 1,
        "step_count": 4,
        "image_index": 0,
        "elapsed_s": 0.5,
        "estimated_remaining_s": 1.5,
    }
    assert records[-2]["event"] == "image"
    assert records[-2]["path"] == "out.png"
    assert records[-1]["usage"] == {
        "device_time_s": 1.5,
        "image_count": 1,
        "pixel_count": 4096,
        "step_count": 4,
    }
    assert not any("data" in record for record in records)


def test_invalid_request_exits_2_with_a_line_for_each_field(
    scripted: ScriptedService, cli: Cli
) -> None:
    fields = ["inputs", "parameters.width", "parameters.num_inference_steps"]
    violations = [
        BadRequest.FieldViolation(field=field, description="must be other") for field in fields
    ]
    details = BadRequest(field_violations=violations)
    scripted.play(status(grpc.StatusCode.INVALID_ARGUMENT, "no", details))
    result = cli("generate", "")
    assert result.code == 2
    assert result.stderr.splitlines() == [
        *("PROMPT: must be other", "--width: must be other", "--steps: must be other"),
    ]


def test_busy_service_exits_3_and_says_when_to_come_back(
    scripted: ScriptedService, cli: Cli
) -> None:
    info = ErrorInfo(reason="QUEUE_FULL", domain="safelight")
    retry_info = RetryInfo(retry_delay=Duration(seconds=12))
    scripted.play(status(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many wait", info, retry_info))
    result = cli("generate", "a red circle")
    assert (result.code, result.stderr) == (3, "too many wait (try again in 12 s)\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (errors.ModelLoadingError("shapes", 20.0), "leave out --no-wait-for-model to wait for it"),
        (errors.UnauthenticatedError(), "set SAFELIGHT_TOKEN, or name a file that holds it by"),
        (
            errors.InvalidRequestError(
                [errors.FieldViolation("parameters.guidance_scale", "takes: num_inference_steps")]
            ),
            "--guidance-scale: takes: --steps",
        ),
        (
            errors.InvalidRequestError(
                [errors.FieldViolation("adapters[1].name", "must be one of ink, oil")]
            ),
            "--adapter number 2: must be one of ink, oil",
        ),
    ],
    ids=["loading", "token", "parameters", "adapters"],
)
def test_advice_of_the_service_names_options(
    scripted: ScriptedService, cli: Cli, error: errors.SafelightError, message: str
) -> None:
    scripted.pushback_ms = -1
    scripted.play(status_pb2.Status.FromString(_status_of(error)))
    result = cli("generate", "a red circle", "--no-wait-for-model")
    assert message in result.stderr
    assert not re.search(r"x-wait|Bearer|num_inference|guidance_scale", result.stderr)


def _status_of(error: errors.SafelightError) -> bytes:
    """Return what the real service sends."""
    metadata = dict(to_status(error).trailing_metadata)
    details = metadata["grpc-status-details-bin"]
    assert isinstance(details, bytes)
    return details


def test_http_server_is_named_as_such(cli: Cli, http_server: str) -> None:
    result = cli("models", "--target", http_server)
    assert result.code == 3
    assert "\nthis is an HTTP server, such as the gateway; --target takes" in result.stderr


@pytest.fixture
def http_server() -> Iterator[str]:
    """HOST:PORT of a server that speaks HTTP/1.1 only."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_prompt_is_read_from_standard_input(
    scripted: ScriptedService, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.play(whole_generation())
    monkeypatch.setattr(sys, "stdin", io.StringIO("a red circle\n"))
    assert cli("generate", "-").code == 0
    assert scripted.requests[0].inputs == "a red circle"


def test_error_is_the_last_record(scripted: ScriptedService, cli: Cli) -> None:
    scripted.play(accepted(), failure(grpc.StatusCode.INTERNAL, "INTERNAL", "internal error, id=1"))
    assert cli("generate", "a red circle", "--json").records[-1] == {
        "event": "error",
        "message": "internal error, id=1",
        "code": "INTERNAL",
        "reason": "INTERNAL",
        "violations": [],
        "retry_after_s": None,
    }


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        (grpc.StatusCode.NOT_FOUND, 1),
        (grpc.StatusCode.UNAVAILABLE, 3),
        (grpc.StatusCode.DEADLINE_EXCEEDED, 4),
        (grpc.StatusCode.UNAUTHENTICATED, 5),
        (grpc.StatusCode.PERMISSION_DENIED, 5),
        (grpc.StatusCode.INTERNAL, 1),
    ],
)
def test_each_failure_has_its_exit_code(
    scripted: ScriptedService, cli: Cli, code: grpc.StatusCode, exit_code: int
) -> None:
    scripted.pushback_ms = -1
    scripted.play(status(code, "no"))
    result = cli("models")
    assert result.code == exit_code
    assert result.stderr.endswith(("no\n", "by --token-file\n"))


def test_service_that_cannot_be_reached_brings_a_hint(cli: Cli) -> None:
    result = cli("models", "--target", "localhost:1")
    assert result.code == 3
    assert result.stderr.startswith("cannot reach the service; does it run, and is --target right?")


@pytest.mark.parametrize("error_type", [*dict.fromkeys(ERROR_TYPES.values()), ProtocolError])
def test_every_error_has_an_exit_code(error_type: type[ProtocolError]) -> None:
    assert exit_code_of(error_type("no")) in {1, 2, 3, 4, 5}


def test_broken_image_leaves_no_file(scripted: ScriptedService, cli: Cli, tmp_path: Path) -> None:
    scripted.play(accepted(), header(png(), sha256="0" * 64), chunk(png()), completed())
    result = cli("generate", "a red circle")
    assert (result.code, result.stderr) == (1, "the SHA-256 of image 0 is not the announced one\n")
    assert not list(tmp_path.iterdir())


def test_file_that_cannot_be_written_exits_1_and_leaves_no_part(
    scripted: ScriptedService, cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "out-0.png").mkdir()
    scripted.play(accepted(2), image(0), image(1), completed())
    result = cli("generate", "a red circle", "-q", "-o", "out.png", "--count", "2")
    assert result.code == 1
    assert "cannot write" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out-0.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "out.gif"], "must end in one of .png, .jpg, .jpeg, .webp"),
        (["-o", "missing/out.png"], "the folder 'missing' does not exist"),
        (["-o", "-", "--count", "2"], "takes one image only"),
        (["-o", "-", "--json"], "both take standard output"),
        (
            ["--seed", str(2**70)],
            "'--seed': Input should be less than or equal to 9223372036854775807",
        ),
        (["--seed", "-1"], "'--seed': Input should be greater than or equal to 0"),
        (["--steps", "0"], "'--steps': Input should be greater than or equal to 1"),
        (["--steps", str(2**31)], "--steps must be from 0 to 2147483647, not 2147483648"),
        (["--width", "0"], "'--width': Input should be greater"),
        (["--height", str(2**31)], "--height must be from 0 to 2147483647"),
        (["--count", "0"], "'--count': Input should be greater than or equal to 1"),
        (["--quality", "101"], "'--quality': Input should be less than or equal to 100"),
        (["--timeout", "-1"], "'--timeout': Input should be greater than or equal to 0"),
        (["--target", "http://localhost:50051"], "--target must be a gRPC target"),
        (["--steps", "many"], "a valid integer"),
        (["--adapter", "ink:much"], "must be NAME or NAME:SCALE, not ink:much"),
        (["--adapter", "ink", "--adapter", "ink:1"], "ink is given twice"),
    ],
)
def test_wrong_arguments_exit_2_before_any_call(
    scripted: ScriptedService, cli: Cli, arguments: list[str], message: str
) -> None:
    result = cli("generate", "a red circle", *arguments)
    assert result.code == 2
    assert message in result.stderr
    assert not scripted.requests


def test_token_comes_from_the_environment(
    scripted: ScriptedService, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFELIGHT_TOKEN", "secret")
    cli("models")
    assert scripted.metadata["authorization"] == "Bearer secret"


def test_token_file_wins_over_the_environment(
    scripted: ScriptedService, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAFELIGHT_TOKEN", "secret")
    Path("token").write_text("other\n")
    cli("models", "--token-file", "token")
    assert scripted.metadata["authorization"] == "Bearer other"


def test_models_are_a_table(scripted: ScriptedService, cli: Cli) -> None:
    scripted.models = [
        pb.Model(
            name="shapes",
            is_default=True,
            state=pb.MODEL_STATE_READY,
            capabilities=pb.ModelCapabilities(
                defaults=pb.TextToImageParameters(width=256, height=128, num_inference_steps=20),
                schedulers=[pb.Scheduler(name="DDIMScheduler", aliases=["ddim"])],
                limits=pb.ModelLimits(
                    min_side_px=64,
                    max_side_px=512,
                    size_multiple_px=8,
                    max_step_count=150,
                    max_guidance_scale=50,
                    max_image_count=8,
                ),
            ),
        ),
        pb.Model(name="later", state=pb.MODEL_STATE_NOT_LOADED),
    ]
    lines = cli("models").stdout.decode().splitlines()
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]
    first = rows.index(["shapes (default)", "ready", "256x128 px", "ddim", "64-512 px"])
    assert rows[first + 1 :] == [
        ["20 steps", "by 8 px"],
        ["150 steps"],
        ["guidance 50"],
        ["8 images"],
        ["later", "not loaded"],
    ]


def test_models_as_json_are_a_line_each(scripted: ScriptedService, cli: Cli) -> None:
    scripted.models = [pb.Model(name="shapes", state=pb.MODEL_STATE_READY), pb.Model(name="later")]
    first, second = cli("models", "--json").records
    assert (first["name"], first["state"], first["capabilities"]) == ("shapes", "ready", None)
    assert second["name"] == "later"


def test_version_is_printed(cli: Cli) -> None:
    assert cli("--version").stdout.startswith(b"safelight 0.")


class FullStream(io.TextIOWrapper):
    """A text stream on a full disk."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO())

    def write(self, text: str) -> int:
        """Fail, as /dev/full does."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "arguments", [["models"], ["--version"], ["generate", "a red circle", "--json"]]
)
def test_standard_output_that_cannot_be_written_is_explained(
    arguments: list[str], scripted: ScriptedService, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.play(whole_generation())
    monkeypatch.setattr(sys, "stdout", FullStream())
    result = cli(*arguments)
    assert result.code == 1
    assert result.stderr.endswith("cannot write: [Errno 28] No space left on device\n")


def test_standard_error_that_cannot_be_written_costs_the_progress_only(
    scripted: ScriptedService, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.play(whole_generation())
    monkeypatch.setattr(sys, "stderr", FullStream())
    result = cli("generate", "a red circle", "-o", "out.png")
    assert (result.code, result.stdout) == (0, b"out.png\n")


def test_output_that_cannot_be_written_is_refused_before_the_generation(
    scripted: ScriptedService, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    assert "'folder.png' is a folder" in cli("generate", "a", "-o", "folder.png").stderr
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    for arguments in ([], ["-o", "out.png"]):
        result = cli("generate", "a", *arguments)
        assert result.code == 2
        assert "is not writable" in result.stderr
    monkeypatch.setattr(sys, "stdout", None)
    assert "standard output is closed" in cli("generate", "a", "-o", "-").stderr
    assert not scripted.requests


def test_prompt_that_cannot_be_read_is_refused_by_its_name(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "PROMPT must be UTF-8" in cli("generate", "\udcff").stderr
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
    assert "PROMPT must be UTF-8" in cli("generate", "-").stderr
    monkeypatch.setattr(sys, "stdin", None)
    assert "PROMPT must be given, since standard input is closed" in cli("generate", "-").stderr
