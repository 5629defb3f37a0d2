"""A timestamp authority on loopback, which OpenSSL implements."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

from cryptography.x509.oid import ExtendedKeyUsageOID

from safelight_service.provenance.dev_certificate import write_dev_certificate

_CONFIGURATION = """[tsa]
default_tsa = authority
[authority]
serial = {folder}/serial
signer_cert = {folder}/certificate.pem
signer_key = {folder}/private_key.pem
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha384, sha512
ess_cert_id_alg = sha256
"""


@contextmanager
def run_timestamp_authority(folder: Path) -> Iterator[str]:
    """Run an authority with its files in a folder; yield its URL."""
    write_dev_certificate(folder, purpose=ExtendedKeyUsageOID.TIME_STAMPING)
    (folder / "serial").write_text("01")
    (folder / "openssl.cnf").write_text(_CONFIGURATION.format(folder=folder))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query, reply = folder / "query", folder / "reply"
            query.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
            command: list[str | Path] = ["openssl", "ts", "-reply", "-queryfile", query]
            command += ["-out", reply, "-config", folder / "openssl.cnf"]
            subprocess.run(command, check=True, capture_output=True)
            self.send_response(200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(reply.read_bytes())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()
