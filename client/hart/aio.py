"""The asyncio client: the same methods as hart.client, as coroutines."""

# ruff: noqa: ASYNC109 (a timeout here is the deadline sent with the call)

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar, Unpack

import grpc

from hart import errors, request
from hart.channel import DEFAULT_ENDPOINT, DEFAULT_MESSAGE_BYTES, TLS, Connection
from hart.results import Event, GenerateResult, event_of
from hart.v1 import images_pb2, images_pb2_grpc

T = TypeVar("T")


class AsyncClient:
    """Generates images on a cluster; arguments and errors as `hart.Client`.

    It is bound to the event loop of its first use, and raises ValueError in another one. Cancelling the awaiting task
    cancels the request on the server.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        api_key: str | None = None,
        tls: TLS | None = None,
        *,
        insecure: bool = False,
    ) -> None:
        self._connection = Connection(endpoint, api_key, tls, insecure)
        self._message_bytes = DEFAULT_MESSAGE_BYTES
        self._channels: list[grpc.aio.Channel] = []
        self._streams: set[Any] = set()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def _stub(self) -> images_pb2_grpc.ImagesAsyncStub:
        if self._closed:
            raise ValueError("the client is closed")
        self._require_loop()
        if not self._channels:
            self._channels.append(self._connection.open_async(self._message_bytes))
        stub: Any = images_pb2_grpc.ImagesStub(self._channels[-1])
        return stub  # type: ignore[no-any-return]

    def _require_loop(self) -> None:
        """Raises ValueError in another event loop than that of the first use, because gRPC binds channels to a loop."""
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise ValueError(
                "the client belongs to another event loop (that of its first use); create one client per loop"
            )

    async def generate(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[request.Options]
    ) -> GenerateResult:
        """Return all images of a request when they are done; options as in `hart.request.Options`."""
        message = request.build(prompt, options)
        return GenerateResult.of(await self._call(self._stub.Generate, message, timeout, message.request_id))

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[request.Options]
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a request as they arrive. Closing the iterator cancels the request on the server."""
        message = request.build(prompt, options)
        timeout = request.timeout_of(timeout)
        return self._events(message, timeout)

    async def _events(self, message: images_pb2.GenerateRequest, timeout: float | None) -> AsyncGenerator[Event, None]:
        call: Any = self._stub.GenerateStream(message, timeout=timeout, metadata=self._connection.metadata())
        self._streams.add(call)
        try:
            async for piece in call:
                event = event_of(piece)
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise errors.from_rpc(error, message.request_id, self._connection.proxy) from None
        except asyncio.CancelledError:
            self._raise_if_closed(message.request_id)
            raise
        finally:
            self._streams.discard(call)
            call.cancel()  # A no-op once the stream has ended.

    async def describe(self, *, timeout: float | None = 10) -> images_pb2.DescribeResponse:
        """Models, limits and defaults. Later calls accept responses up to the `max_response_bytes` returned."""
        response: images_pb2.DescribeResponse = await self._call(
            self._stub.Describe, images_pb2.DescribeRequest(), timeout
        )
        if response.limits.max_response_bytes > self._message_bytes:
            self._message_bytes = response.limits.max_response_bytes
            self._channels.append(self._connection.open_async(self._message_bytes))
        return response

    async def status(self, *, timeout: float | None = 10) -> images_pb2.StatusResponse:
        """The replicas and load of every stage."""
        response: images_pb2.StatusResponse = await self._call(self._stub.Status, images_pb2.StatusRequest(), timeout)
        return response

    async def _call(self, method: Callable[..., Any], message: Any, timeout: float | None, request_id: str = "") -> Any:
        timeout = request.timeout_of(timeout)
        try:
            return await method(message, timeout=timeout, metadata=self._connection.metadata())
        except grpc.RpcError as error:
            raise errors.from_rpc(error, request_id, self._connection.proxy) from None
        except asyncio.CancelledError:
            self._raise_if_closed(request_id)
            raise

    def _raise_if_closed(self, request_id: str) -> None:
        """Raises hart.Cancelled if `close` ended the call: gRPC raises CancelledError though the task runs on."""
        task = asyncio.current_task()
        if self._closed and not (task and task.cancelling()):
            raise errors.Cancelled("the client was closed", grpc.StatusCode.CANCELLED, request_id) from None

    async def close(self) -> None:
        """Cancel every call and close the connections.

        Raises ValueError in another event loop than the client's, unless the client's loop is closed.
        """
        if self._loop is not None and self._loop.is_closed():
            self._closed = True
            self._channels.clear()
            return
        self._require_loop()
        self._closed = True
        for call in list(self._streams):  # grpc.aio itself cancels only calls that are awaited directly
            call.cancel()
        for channel in self._channels:
            await channel.close()
        self._channels.clear()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
