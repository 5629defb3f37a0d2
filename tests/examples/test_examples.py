"""The examples in other languages, built and run as their READMEs say."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from safelight.testing import FakeService, Vector
from safelight.v1 import text_to_image_pb2 as pb

from clients.conformance.runners import ROOT, find_runners

pytestmark = pytest.mark.examples

_EXAMPLES = ROOT / "examples"
_BUILT = ROOT / "build" / "examples"
_COMMANDS = {
    "cpp": [str(_BUILT / "cpp" / "generate")],
    "go": [str(_BUILT / "go" / "generate")],
    "java": ["java", f"@{_BUILT / 'java' / 'example.args'}", "Generate"],
    "ruby": ["ruby", f"-I{_BUILT / 'ruby'}", str(_EXAMPLES / "ruby" / "generate.rb")],
}
_ACCEPTED = {"send": {"accepted": {"model": "fake", "image_count": 1}}}
_PATIENCE_S = 60


@pytest.fixture(scope="module", params=sorted(_COMMANDS))
def command(request: pytest.FixtureRequest) -> list[str]:
    """The command of each example, built; skips a language that is not installed."""
    language = str(request.param)
    [runner] = [each for each in find_runners() if each.folder == _EXAMPLES / language]
    if missing := runner.find_missing():
        pytest.skip(f"{missing} fails: scripts/install-toolchains installs it")
    runner.build()
    return _COMMANDS[language]


def test_an_image_is_drawn_and_its_progress_shown(command: list[str], tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    with FakeService() as target:
        ended = _run(command, target, "--output", str(image), "--width", "128", "a red circle")
    assert ended.returncode == 0, ended.stderr
    assert "step 4 of 4" in ended.stderr
    assert f"{image}: 128 x 64, seed " in ended.stderr
    assert image.read_bytes().startswith(b"\x89PNG")


def test_each_bad_field_is_printed_by_its_name(command: list[str], tmp_path: Path) -> None:
    bad = ("--width", "1001", "--height", "3", "--steps", "0")
    with FakeService() as target:
        ended = _run(command, target, *bad, "a red circle", folder=tmp_path)
    assert ended.returncode == 1
    assert [line.partition(":")[0] for line in ended.stderr.splitlines()] == [
        "parameters.width",
        "parameters.height",
        "parameters.num_inference_steps",
    ]


def test_a_token_is_sent(command: list[str], tmp_path: Path) -> None:
    with FakeService(token="secret") as target:
        refused = _run(command, target, "a red circle", folder=tmp_path)
        allowed = _run(command, target, "a red circle", folder=tmp_path, token="secret")
    assert refused.returncode == 1
    assert "authorization" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.parametrize(
    "broken",
    [
        {"status": {"code": "INTERNAL", "message": "Received RST_STREAM with error code 2"}},
        {"connection": "reset"},
    ],
    ids=["by-envoy", "reset"],
)
def test_a_broken_stream_is_resumed(
    command: list[str], tmp_path: Path, broken: dict[str, object]
) -> None:
    image = {"image": {"width": 64, "height": 64, "size_bytes": "3000000", "seed": "7"}}
    vector: Vector = {
        "name": "a broken stream",
        "calls": [
            {"script": [_ACCEPTED, {"send": {"progress": {"step": 1, "step_count": 2}}}, broken]},
            {"script": [_ACCEPTED, image, {"send": {"completed": {}}}]},
        ],
    }
    service = FakeService(vectors=[vector])
    with service as target:
        ended = _run(command, target, "a broken stream", folder=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "image.png").stat().st_size == 3_000_000
    first, second = service.requests
    assert first == second
    assert isinstance(first, pb.GenerateRequest)
    assert first.generation_id


def test_ctrl_c_cancels_the_generation(command: list[str], tmp_path: Path) -> None:
    service = FakeService(step_s=0.05)
    with service as target:
        arguments = [*command, "--target", target, "--steps", "100", "a red circle"]
        with subprocess.Popen(arguments, cwd=tmp_path, stderr=subprocess.PIPE) as process:
            printed = b""
            while b"step 2 of 100" not in printed:
                byte = process.stderr.read(1) if process.stderr else b""
                assert byte, printed
                printed += byte
            process.send_signal(signal.SIGINT)
            _, rest = process.communicate(timeout=_PATIENCE_S)
    assert rest.endswith(b"cancelled\n")
    assert process.returncode in (130, -signal.SIGINT)
    generate, cancel = service.requests
    assert isinstance(generate, pb.GenerateRequest)
    assert cancel == pb.CancelGenerationRequest(generation_id=generate.generation_id)


def _run(
    command: list[str], target: str, *arguments: str, folder: Path | None = None, token: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run an example to its end; it writes image.png into the folder."""
    environment = {key: value for key, value in os.environ.items() if key != "SAFELIGHT_TOKEN"}
    return subprocess.run(
        [*command, "--target", target, *arguments],
        cwd=folder,
        env=environment | ({"SAFELIGHT_TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
    )
