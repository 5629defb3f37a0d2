"""A Hugging Face Hub on loopback with one repository, by the two paths that downloads need."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

REPOSITORY = "owner/name"
COMMIT = "0123456789" * 4


class LoopbackHub:
    """Serves the files of a folder as those of one commit, and notes what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self.wfile.write(self._answer())

            def _answer(self) -> bytes:
                path = urlsplit(self.path).path
                if REPOSITORY in path:
                    hub.asked.append(path)
                body = hub.answer(path)
                self.send_response(404 if body is None else 200)
                if body is not None:
                    self.send_header("X-Repo-Commit", COMMIT)
                    self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                return body or b""

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, path: str) -> bytes | None:
        """Return the body for a path: the list of all files, or one of them."""
        if path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            return json.dumps([self._describe(file) for file in self.files()]).encode()
        file = self.folder / path.removeprefix(f"/{REPOSITORY}/resolve/{COMMIT}/")
        return file.read_bytes() if file.is_file() else None

    def files(self) -> list[Path]:
        """All files, below the folder."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _describe(self, file: Path) -> dict[str, object]:
        data = file.read_bytes()
        path = file.relative_to(self.folder).as_posix()
        return {
            "type": "file",
            "path": path,
            "size": len(data),
            "oid": hashlib.sha1(data).hexdigest(),
        }

    @contextmanager
    def running(self) -> Iterator[None]:
        """Serve until the block is left."""
        thread = Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
