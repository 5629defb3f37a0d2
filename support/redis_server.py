"""Redis server: a real one on its own socket, which tests can stop and pause."""

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IS_INSTALLED = shutil.which("redis-server") is not None
HINT = "redis-server is not installed: scripts/install-test-servers installs it"


class RedisServer:
    """A redis-server, which is not running at first."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "redis.sock"
        self.url = f"unix://{self._socket}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the server without data; return when it accepts connections."""
        command = ["redis-server", "--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert any("ready to accept" in line.lower() for line in self._process.stdout)

    def stop(self) -> None:
        """Kill the server."""
        if self._process is not None:
            with self._process as process:
                process.kill()
            self._process = None

    def pause(self) -> None:
        """Pause the server; it keeps its connections and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the server; it answers the requests received meanwhile."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


@contextmanager
def open_redis_server() -> Iterator[RedisServer]:
    """Provide a server that is not running yet; stop it at the end."""
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        server = RedisServer(Path(folder))
        try:
            yield server
        finally:
            server.stop()
