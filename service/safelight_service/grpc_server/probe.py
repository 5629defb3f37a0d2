"""Probe: checks a server by the gRPC health protocol, for container engines.

`python -m safelight_service.grpc_server.probe [HOST:PORT]` exits with 0 if the server is serving.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_TIMEOUT_S = 3.0


def is_serving(target: str) -> bool:
    """Whether the server at HOST:PORT answers with SERVING."""
    with grpc.insecure_channel(target) as channel:
        try:
            response = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_S
            )
        except grpc.RpcError:
            return False
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


if __name__ == "__main__":
    target = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"
    sys.exit(0 if is_serving(target) else 1)
