"""hart.v1.Images over gRPC: translates calls to the executor, the description and the status."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from hart.v1 import images_pb2, images_pb2_grpc

from common.version import VERSION
from gateway.access import rate_limits
from gateway.config import GatewaySettings
from gateway.request.executor import RequestExecutor
from gateway.routing.description import ClusterDescription
from gateway.routing.status import ClusterStatus
from runtime.deadline import Deadline
from runtime.server.rpc_context import RpcContext


class ImagesServicer(images_pb2_grpc.ImagesServicer):
    """The public API's four methods."""

    def __init__(
        self,
        settings: GatewaySettings,
        executor: RequestExecutor,
        description: ClusterDescription,
        status: ClusterStatus,
    ) -> None:
        self._settings = settings
        self._executor = executor
        self._description, self._status = description, status
        self._started = time.monotonic()

    async def Generate(self, request: images_pb2.GenerateRequest, context: RpcContext) -> images_pb2.GenerateResponse:
        """Returns all images at once."""
        response = images_pb2.GenerateResponse()
        images: list[images_pb2.Image] = []
        async with aclosing(self._events(request, context, streams=False)) as events:
            async for event in events:
                if event.HasField("image"):
                    images.append(event.image)
                elif event.HasField("finished"):
                    response.report.CopyFrom(event.finished.report)
        response.images.extend(sorted(images, key=lambda image: image.index))
        release = self._executor.hold(response.ByteSize())  # a caller may leave it unread
        context.add_done_callback(lambda _: release())  # type: ignore[arg-type] # the stubs ask for a class
        return response

    async def GenerateStream(
        self, request: images_pb2.GenerateRequest, context: RpcContext
    ) -> AsyncIterator[images_pb2.GenerateEvent]:
        """Streams events as they happen."""
        async with aclosing(self._events(request, context, streams=True)) as events:
            async for event in events:
                yield event

    async def Describe(self, request: images_pb2.DescribeRequest, context: RpcContext) -> images_pb2.DescribeResponse:
        """What this cluster serves."""
        return await self._description.describe()

    async def Status(self, request: images_pb2.StatusRequest, context: RpcContext) -> images_pb2.StatusResponse:
        """The state of the cluster."""
        return images_pb2.StatusResponse(
            stages=await self._status.stages(),
            uptime_seconds=time.monotonic() - self._started,
            inflight=self._executor.demand.ongoing,
            version=VERSION,
            problems=await self._status.problems(),
        )

    def _events(
        self, message: images_pb2.GenerateRequest, context: RpcContext, *, streams: bool
    ) -> AsyncGenerator[images_pb2.GenerateEvent, None]:
        default, maximum = self._settings.absent_deadline_seconds, self._settings.max_deadline_seconds
        return self._executor.events(
            message,
            caller=rate_limits.current.get(),
            deadline=Deadline.of(context, default=default, maximum=maximum),
            streams=streams,
        )
