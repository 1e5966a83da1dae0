"""gRPC server reflection, for clients such as grpcurl."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from runtime.server.rpc_context import RpcContext

MAX_STREAMS = 100
"""Max concurrent reflection streams. Any client can open one and keep it open, and gRPC's limit of calls is shared."""


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """grpcio-reflection's servicer with a limit on concurrent streams."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__([*names, reflection.SERVICE_NAME])
        self._streams = 0

    async def ServerReflectionInfo(
        self, requests: AsyncIterator[reflection_pb2.ServerReflectionRequest], context: RpcContext
    ) -> AsyncIterator[reflection_pb2.ServerReflectionResponse]:
        """One response per request. Aborts with RESOURCE_EXHAUSTED above MAX_STREAMS."""
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reflection streams")
        self._streams += 1
        try:
            async for answer in super().ServerReflectionInfo(requests, context):
                yield answer
        finally:
            self._streams -= 1


def add_reflection(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Serve the descriptors of these services."""
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(names), server)
