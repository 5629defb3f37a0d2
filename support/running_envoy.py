"""Running Envoy: a real Envoy in its own process, with this repository's configuration."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PROGRAM = Path(sys.executable).parent / "envoy"
_ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}"


@dataclass(frozen=True, slots=True)
class Envoy:
    """Envoy that accepts calls, with HOST:PORT for callers and for its statistics."""

    address: str
    admin: str

    @staticmethod
    def is_installed() -> bool:
        """Whether there is a program to run."""
        return _PROGRAM.exists()

    def count(self, counter: str) -> int:
        """Return the value of one of its counters."""
        with urllib.request.urlopen(f"http://{self.admin}/stats?filter={counter}") as answer:
            return int(answer.read().split()[-1])


@contextmanager
def run_envoy(folder: Path, *targets: str) -> Iterator[Envoy]:
    """Run the repository's configuration on a free port, in front of services at HOST:PORT."""
    config = (_ROOT / "deploy" / "envoy.yaml").read_text()
    config, count = re.subn("port_value: 8081", "port_value: 0", config)
    assert count == 1
    begin, endpoint, end = re.split(r"(^ *- endpoint:\n(?:.*\n)*?.*50051}\n)", config, flags=re.M)
    ports = [target.rpartition(":")[2] for target in targets]
    config = begin + "".join(endpoint.replace("50051", port) for port in ports) + end
    (folder / "envoy.yaml").write_text(config)
    command = [str(_PROGRAM), "--config-path", str(folder / "envoy.yaml")]
    command += ["--config-yaml", _ADMIN, "--admin-address-path", str(folder / "admin")]
    command += ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "info"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            log = ""
            while "starting main dispatch loop" not in log:
                line = process.stderr.readline()
                assert line, f"Envoy did not start:\n{log}"
                log += line
            admin = (folder / "admin").read_text()
            with urllib.request.urlopen(f"http://{admin}/listeners?format=json") as answer:
                (listener,) = json.load(answer)["listener_statuses"]
            address = listener["local_address"]["socket_address"]
            yield Envoy(f"{address['address']}:{address['port_value']}", admin)
        finally:
            process.kill()
