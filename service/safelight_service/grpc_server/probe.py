"""Probe: checks a server by the gRPC health protocol, for container engines.

`python -m safelight_service.grpc_server.probe [HOST:PORT]` exits with 0 if the server is serving.
`--tls FOLDER` checks a server with TLS; its certificate and key are `tls.crt` and `tls.key` there.
"""

import argparse
import socket
import ssl
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 3.0


def is_serving(target: str, tls: Path | None = None) -> bool:
    """Whether the server at HOST:PORT answers with SERVING.

    Args:
        target: HOST:PORT.
        tls: folder with the server's own certificate, `tls.crt`, and its key, `tls.key`. The probe
            trusts no other certificate, and shows it to a server that asks for one. None: no TLS.
    """
    try:
        with _connect(target, tls) as channel:
            response = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S
            )
    except (grpc.RpcError, OSError):
        return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def _connect(target: str, tls: Path | None) -> grpc.Channel:
    if tls is None:
        return grpc.insecure_channel(target)
    certificate, key = tls / "tls.crt", tls / "tls.key"
    # A certificate rarely names the address of a probe: check it by a name that it does have.
    name = _read_name(target, certificate, key)
    chain = certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(chain, key.read_bytes(), chain)
    return grpc.secure_channel(target, credentials, [("grpc.ssl_target_name_override", name)])


def _read_name(target: str, certificate: Path, key: Path) -> str:
    """Return a name in the certificate that the server shows, which must be this one."""
    host, _, port = target.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["h2"])
    address = (host.strip("[]"), int(port))
    with (
        socket.create_connection(address, timeout=_TIMEOUT_S) as connection,
        context.wrap_socket(connection) as encrypted,
    ):
        shown = encrypted.getpeercert() or {}
    names = shown.get("subjectAltName", ())
    return next((str(each[1]).replace("*", "probe") for each in names), address[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Exit with 0 if the server is serving, else 1.")
    parser.add_argument("target", nargs="?", default="127.0.0.1:50051", metavar="HOST:PORT")
    parser.add_argument("--tls", type=Path, metavar="FOLDER", help="folder of tls.crt and tls.key")
    options = parser.parse_args()
    sys.exit(0 if is_serving(options.target, options.tls) else 1)
