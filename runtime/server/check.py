"""`python -m runtime.server.check HOST:PORT SERVICE` exits with 0 if the service is ready: a container's health."""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SECONDS = 3.0


def main() -> int:
    """Ask once; print the state."""
    address, service = sys.argv[1:]
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            message = health_pb2.HealthCheckRequest(service=service)
            state = health_pb2_grpc.HealthStub(channel).Check(message, timeout=SECONDS).status
        except grpc.RpcError as error:
            print(f"{service} at {address}: {error.code().name}")
            return 1
    print(f"{service} at {address}: {health_pb2.HealthCheckResponse.ServingStatus.Name(state)}")
    return 0 if state == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main())
