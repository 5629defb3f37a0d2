"""`buf curl`, a third-party client that gets the contract by reflection."""

import base64
import json
import subprocess
import sys
from pathlib import Path

from support.running_service import RunningService

BUF = Path(sys.executable).with_name("buf")


def buf_curl(
    service: RunningService, method: str, request: object
) -> subprocess.CompletedProcess[str]:
    url = f"http://{service.target}/safelight.v1.TextToImageService/{method}"
    options = ["--protocol", "grpc", "--http2-prior-knowledge", "--reflect"]
    command = [str(BUF), "curl", *options, "--data", json.dumps(request), url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def parse_stream(text: str) -> list[dict[str, dict[str, str]]]:
    decoder, events, text = json.JSONDecoder(), [], text.strip()
    while text:
        response, end = decoder.raw_decode(text)
        events.append(response["event"])
        text = text[end:].lstrip()
    return events


def test_a_generation(service: RunningService) -> None:
    result = buf_curl(service, "Generate", {"inputs": "a star", "parameters": {"seed": "3"}})
    assert result.returncode == 0, result.stderr
    events = parse_stream(result.stdout)
    assert events[0]["accepted"]["parameters"]["seed"] == "3"  # type: ignore[index]
    png = b"".join(base64.b64decode(e["chunk"]["data"]) for e in events if "chunk" in e)
    assert png.startswith(b"\x89PNG")
    assert "completed" in events[-1]


def test_an_unknown_model(service: RunningService) -> None:
    result = buf_curl(service, "Generate", {"inputs": "a star", "model": "nope"})
    assert json.loads(result.stderr)["code"] == "not_found"


def test_three_bad_fields_at_once(service: RunningService) -> None:
    parameters = {"width": 7, "guidanceScale": -1, "numInferenceSteps": 0}
    result = buf_curl(service, "Generate", {"inputs": "a star", "parameters": parameters})
    error = json.loads(result.stderr)
    assert error["code"] == "invalid_argument"
    for field in ("width", "guidance_scale", "num_inference_steps"):
        assert f"parameters.{field}: must be" in error["message"]
    assert "google.rpc.BadRequest" in {detail["type"] for detail in error["details"]}
