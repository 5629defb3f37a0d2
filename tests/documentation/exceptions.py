"""Commands that the tests of the documentation do not run as they stand, and servers."""

import re
from dataclasses import dataclass

from tests.documentation.pages import Example

NOT_RUN = {
    r"make (demo|docs|test(-slow|-docs)?|check(-deploy)?|dist)": "CI runs it in another target",
    r"make examples|make -C examples/\w+": "CI runs it in another target",
    r"python -m safelight.testing": "serves until it is ended; tests/client starts it",
    r"scripts/install-toolchains": "installs packages; CI runs it first",
    r"(\./)?build/examples/.*|java @.*|ruby .*": "tests/examples runs it",
    r"make test-typescript": "CI runs it in another target",
    r"make conformance": "CI runs it in another target, and the commands beside it run here",
    r"make install": "all other commands need it, so it has run",
    r"make fuzz": "takes a compiler or a download, and 20 s",
    r"make sweep.*": "takes minutes",
    r"make (test-ray|demo-fleet)|scripts/install-ray": "downloads Ray; CI runs it elsewhere",
    r"PYTHONPATH=\.ray python -m benchmarks\.fleet": "takes minutes, and Ray",
    r"make bench-gpu.*": "takes minutes, and a GPU",
    r"source \.venv/bin/activate": "all other commands are run after it",
    r"pip install .*": "changes the environment of the tests; make dist installs the wheels",
    r"(make image && )?docker .*|make image.*": "needs Docker",
    r"helm .*|kubectl .*": "needs a cluster of Kubernetes",
    r"npm ci --prefix clients/typescript .*": "downloads packages; make test-typescript does it",
    r"safelight-service (ray deploy|--backend ray) .*": "needs a cluster of Ray",
    r"buf generate": "needs the plugins at buf.build",
    r"safelight-service --config safelight\.toml": "downloads the model of the file above it",
    r"envoy --config-path deploy/envoy-edge\.yaml": "would need a --base-id beside the other; "
    "tests/deploy runs it",
    r"safelight verify .*": "needs a signed image; tests/client/provenance runs it",
    r"python -m http\.server .*": "is Python's own server, and runs until it is stopped",
    r"python -m training\.run .*": "trains for minutes to hours",
    r"python -m training\.evaluate .*": "judges hundreds of images, for minutes",
}
"""Reasons by the pattern of whole commands."""


@dataclass(frozen=True, slots=True)
class Server:
    """A command that runs until it is stopped, and lines that show that it is ready."""

    command: str
    ready: tuple[str, ...]


_SERVICE = "Safelight is ready on 127.0.0.1:50051"
_GATEWAY = "Safelight's gateway is ready on http://127.0.0.1:8080"
_ENVOY = "all dependencies initialized. starting workers"
STACK = (
    Server("make serve", (_SERVICE,)),
    Server("safelight-gateway --listen 127.0.0.1:8080 --target 127.0.0.1:50051", (_GATEWAY,)),
    Server("envoy --config-path deploy/envoy.yaml", (_ENVOY,)),
)
"""Servers that run together, for all other commands."""

ALONE = (
    Server("make serve-all", (_SERVICE, _GATEWAY)),
    Server("safelight-service", (_SERVICE,)),
)
"""Servers on the same ports, each tried by itself."""

SERVERS = {server.command for server in (*STACK, *ALONE)}


def find_reason(example: Example) -> str | None:
    """Return why this command is not run, or None if it is."""
    reasons = [NOT_RUN[pattern] for pattern in NOT_RUN if re.fullmatch(pattern, example.command)]
    assert len(reasons) <= 1, f"{example.where} has {len(reasons)} reasons"
    return reasons[0] if reasons else None
