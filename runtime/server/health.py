"""grpc.health.v1 for the asyncio server.

It replaces grpcio-health-checking's servicer. There, a watcher that leaves removes the notifications of the others, and
a watcher that does not read blocks every change of state, including draining.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime.server.rpc_context import RpcContext

Response = health_pb2.HealthCheckResponse
MAX_WATCHERS = 1_000


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Serves Check and Watch. The service `""` is the process itself: SERVING until it drains."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {"": Response.SERVING}
        self._changed = asyncio.Event()
        self._watchers = 0

    def set(self, service: str, serving: bool) -> None:
        """Set a service's state and notify the watchers."""
        self._states[service] = Response.SERVING if serving else Response.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def set_all(self, serving: bool) -> None:
        """Set the same state for every service."""
        for service in self._states:
            self.set(service, serving)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: RpcContext
    ) -> health_pb2.HealthCheckResponse:
        """The current state. Aborts with NOT_FOUND for an unknown service."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return Response(status=state)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: RpcContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """The current state, then each change. Aborts with RESOURCE_EXHAUSTED above MAX_WATCHERS."""
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers")
        self._watchers += 1
        try:
            sent = None
            while True:
                changed = self._changed
                state = self._states.get(request.service, Response.SERVICE_UNKNOWN)
                if state != sent:
                    sent = state
                    yield Response(status=state)
                await changed.wait()
        finally:
            self._watchers -= 1
