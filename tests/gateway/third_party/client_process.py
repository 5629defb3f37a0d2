"""Client process: third-party clients in their own environment, many to a process."""

import base64
import io
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

_TOP = Path(__file__).parents[3]
INSTALLED = Path(os.environ.get("SAFELIGHT_TEST_CLIENTS") or _TOP / "build" / "gateway-clients")
_SCRIPTS = Path(__file__).parents[1] / "clients"
_COMMANDS = {
    "python": [str(INSTALLED / "python/bin/python"), str(_SCRIPTS / "clients.py")],
    "python-nebius": [str(INSTALLED / "python-nebius/bin/python"), str(_SCRIPTS / "clients.py")],
    "node": ["node", str(_SCRIPTS / "clients.mjs")],
}
ARE_INSTALLED = all((INSTALLED / name / ".installed").is_file() for name in _COMMANDS)
"""Whether `scripts/install-gateway-clients` has run."""

PROMPT = "a red circle on a blue background"
PARAMETERS: dict[str, Any] = {
    "negative_prompt": "blurry",
    "width": 96,
    "height": 64,
    "num_inference_steps": 2,
    "guidance_scale": 3.0,
    "scheduler": "EulerDiscreteScheduler",
    "seed": 7,
}
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
"""Version of a model on Replicate, to use as an alias."""


@dataclass(frozen=True, slots=True)
class Case:
    """Call of one client.

    Attributes:
        client: Its name in the script.
        url: URL of the gateway.
        model: Id of the model, in the client's spelling.
    """

    client: str
    url: str
    model: str = "safelight/shapes"
    token: str = "hf_token"
    parameters: Mapping[str, Any] = field(default_factory=lambda: PARAMETERS)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of one client.

    Attributes:
        data: Bytes of the image; empty after an exception.
        exception: Class name and text of the exception.
        requests: Method, path and status of each request that the gateway received.
    """

    data: bytes
    exception: str
    requests: Sequence[tuple[str, str, int]]

    @property
    def image(self) -> PIL.Image.Image:
        """The image, decoded."""
        assert not self.exception, self.exception
        return PIL.Image.open(io.BytesIO(self.data)).convert("RGB")

    def statuses(self, method: str) -> list[int]:
        """Return the statuses of the requests with this method, in order."""
        return [status for used, _, status in self.requests if used == method]


def start_clients(
    runtime: str,
    cases: Sequence[Case],
    *,
    prefix: str | None = None,
    is_impatient: bool = False,
    environment: Mapping[str, str] | None = None,
) -> "ClientProcess":
    """Start to run the cases one after another, below their own path prefix.

    Use another `prefix`, such as an empty one, for one runtime at a time. Impatient clients retry
    without waiting.
    """
    if prefix is None:
        prefix = f"/seen-by/{runtime}"
    job = {
        "cases": [{**asdict(case), "base": f"{case.url}{prefix}"} for case in cases],
        "version": VERSION,
        "prompt": PROMPT,
        "is_impatient": is_impatient,
        "modules": str(INSTALLED / "node/node_modules"),
    }
    process = subprocess.Popen(
        _COMMANDS[runtime],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**_ENVIRONMENT, **(environment or {})},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(job))
    process.stdin.close()
    process.stdin = None
    return ClientProcess(process, len(cases))


_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.environ.get("HOME", "/"),
    "HF_HOME": str(INSTALLED / "hf-home"),
    "NO_PROXY": "*",
}


@dataclass(frozen=True, slots=True)
class ClientProcess:
    """Process with running clients."""

    process: "subprocess.Popen[str]"
    case_count: int

    def outcomes(self) -> list[Outcome]:
        """Wait for all clients; return the outcome of each case."""
        written, complaints = self.process.communicate(timeout=120)
        answers = [json.loads(line) for line in written.splitlines()]
        assert len(answers) == self.case_count, complaints
        return [
            Outcome(
                data=base64.b64decode(case.get("image", "")),
                exception=f"{case['exception']}: {case['message']}" if "exception" in case else "",
                requests=[(method, path, status) for method, path, status in case["requests"]],
            )
            for case in answers
        ]
