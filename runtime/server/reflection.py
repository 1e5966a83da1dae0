"""gRPC reflection, what a process serves, for grpcurl and its like. Knows no service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

MAX_STREAMS = 100
"""At the same time. They are anybody's to open and last as long as their callers like, and gRPC's limit of calls is
shared by all."""


class Reflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """The library's, but for the bound."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__([*names, reflection.SERVICE_NAME])
        self._streams = 0

    async def ServerReflectionInfo(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Answers to questions as they come."""
        if self._streams >= MAX_STREAMS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many reflection streams")
        self._streams += 1
        try:
            async for answer in super().ServerReflectionInfo(requests, context):
                yield answer
        finally:
            self._streams -= 1


def add_reflection(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Serve the descriptions of the services of these names."""
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(Reflection(names), server)
