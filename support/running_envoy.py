"""Running Envoy: a real Envoy in its own process, with a configuration of this repository."""

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PROGRAM = Path(sys.executable).parent / "envoy"
BROWSERS, EDGE = "envoy.yaml", "envoy-edge.yaml"
"""Configurations in `deploy/`: for browsers, and for untrusted networks."""
_ADMIN = "admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}"


@dataclass(frozen=True, slots=True)
class Envoy:
    """Envoy that accepts calls, with HOST:PORT for callers and for its statistics."""

    address: str
    admin: str
    process_id: int

    @staticmethod
    def is_installed() -> bool:
        """Whether there is a program to run."""
        return _PROGRAM.exists()

    def count(self, counter: str) -> int:
        """Return the value of one of its counters."""
        with urllib.request.urlopen(f"http://{self.admin}/stats?filter={counter}") as answer:
            return int(answer.read().split()[-1])


@contextmanager
def run_envoy(
    folder: Path,
    *targets: str,
    config: str = BROWSERS,
    port: int = 0,
    edit: Callable[[str], str] = lambda text: text,
) -> Iterator[Envoy]:
    """Run a configuration in front of services at HOST:PORT, on a port, where 0 is any free one.

    `edit` changes more of the configuration than its addresses.
    """
    config = edit((_ROOT / "deploy" / config).read_text())
    config, count = re.subn("port_value: 808[12]", f"port_value: {port}", config)
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
            while "all dependencies initialized. starting workers" not in log:
                line = process.stderr.readline()
                assert line, f"Envoy did not start:\n{log}"
                log += line
            admin = (folder / "admin").read_text()
            with urllib.request.urlopen(f"http://{admin}/listeners?format=json") as answer:
                (listener,) = json.load(answer)["listener_statuses"]
            address = listener["local_address"]["socket_address"]
            yield Envoy(f"{address['address']}:{address['port_value']}", admin, process.pid)
        finally:
            process.kill()
