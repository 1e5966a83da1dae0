"""grpc.health.v1 for the asyncio server. Knows names and states, nothing of what they stand for.

Not grpcio-health-checking's own servicer: there one watcher that leaves takes the others' notifications with it, and a
watcher that does not read holds up every change of state, draining included.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Response: Any = health_pb2.HealthCheckResponse
MAX_WATCHERS = 1_000


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Answers Check and Watch. `""` is the process itself, alive as long as it answers and does not drain."""

    def __init__(self) -> None:
        self._states: dict[str, int] = {"": Response.SERVING}
        self._changed = asyncio.Event()
        self._watchers = 0

    def set(self, service: str, serving: bool) -> None:
        """Note a state and wake the watchers."""
        self._states[service] = Response.SERVING if serving else Response.NOT_SERVING
        self._changed.set()
        self._changed = asyncio.Event()

    def set_all(self, serving: bool) -> None:
        """Note the same state for every service."""
        for service in self._states:
            self.set(service, serving)

    async def Check(self, request: Any, context: Any) -> Any:
        """The state now; NOT_FOUND for a service that was never named."""
        state = self._states.get(request.service)
        if state is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return Response(status=state)

    async def Watch(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """The state now and whenever it changes."""
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
