"""A replica that is healthy but fails every call with UNAVAILABLE."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc


class _Refuses(grpc.GenericRpcHandler):
    def __init__(self, service: str) -> None:
        self._prefix = f"/{service}/"

    def service(self, details: Any) -> Any:
        """A handler for the service's methods."""
        return grpc.unary_unary_rpc_method_handler(_refuse) if details.method.startswith(self._prefix) else None


def _refuse(request: bytes, context: grpc.ServicerContext) -> Any:
    context.abort(grpc.StatusCode.UNAVAILABLE, "not today")


@contextmanager
def refusing_replica(service: str) -> Iterator[str]:
    """The address of a failing replica of `service` ("hart.v1.Decoder")."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    status = health.HealthServicer()
    status.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(status, server)
    server.add_generic_rpc_handlers((_Refuses(service),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)
