"""The third-party clients: scripts in environments of their own, one process for many clients."""

import base64
import io
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image

_TOP = Path(__file__).parents[2]
_INSTALLED = Path(os.environ.get("SAFELIGHT_TEST_CLIENTS") or _TOP / "build" / "gateway-clients")
_SCRIPTS = Path(__file__).parent / "clients"
_COMMANDS = {
    "python": [str(_INSTALLED / "python/bin/python"), str(_SCRIPTS / "clients.py")],
    "python-nebius": [str(_INSTALLED / "python-nebius/bin/python"), str(_SCRIPTS / "clients.py")],
    "node": ["node", str(_SCRIPTS / "clients.mjs")],
}
ARE_INSTALLED = all((_INSTALLED / name / ".installed").is_file() for name in _COMMANDS)
"""Whether `scripts/install-gateway-clients` has run."""

PROMPT = "a red circle on a blue background"
PARAMETERS: dict[str, Any] = {
    "negative_prompt": "blurry",
    "width": 96,
    "height": 64,
    "num_inference_steps": 3,
    "guidance_scale": 3.0,
    "scheduler": "EulerDiscreteScheduler",
    "seed": 7,
}
VERSION = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
"""A version of a model on Replicate, to give an alias."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went for one client.

    Attributes:
        data: The image's bytes; empty where there is an exception.
        exception: Name of the exception's class, and its words.
        requests: Method, path and status of each request that the gateway has seen.
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
        """Return the statuses of the requests with this method, in their order."""
        return [status for used, _, status in self.requests if used == method]


def start_clients(
    runtime: str,
    gateway_url: str,
    names: Sequence[str],
    *,
    model: str = "safelight/shapes",
    token: str = "hf_token",
    parameters: Mapping[str, Any] = PARAMETERS,
    is_impatient: bool = False,
    environment: Mapping[str, str] | None = None,
) -> "ClientProcess":
    """Start to run the named clients one after the other, below a path prefix of their own."""
    base = f"{gateway_url}/seen-by/{runtime}"
    job = {
        "base": base,
        "recorder": f"{base}/recorded",
        "token": token,
        "model": model,
        "version": VERSION,
        "prompt": PROMPT,
        "parameters": parameters,
        "names": names,
        "is_impatient": is_impatient,
        "modules": str(_INSTALLED / "node/node_modules"),
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
    return ClientProcess(process, names)


_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": os.environ.get("HOME", "/"),
    "HF_HOME": str(_INSTALLED / "hf-home"),
    "NO_PROXY": "*",
}


@dataclass(frozen=True, slots=True)
class ClientProcess:
    """Clients that run."""

    process: "subprocess.Popen[str]"
    names: Sequence[str]

    def outcomes(self) -> dict[str, Outcome]:
        """Wait for all of them."""
        written, complaints = self.process.communicate(timeout=120)
        outcomes = {}
        for line in written.splitlines():
            told = json.loads(line)
            outcomes[told["name"]] = Outcome(
                data=base64.b64decode(told.get("image", "")),
                exception=f"{told['exception']}: {told['message']}" if "exception" in told else "",
                requests=[(method, path, status) for method, path, status in told["requests"]],
            )
        assert len(outcomes) == len(self.names), complaints
        return outcomes
