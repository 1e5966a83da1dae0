"""Callers that do not read their answers, and many calls of one peer: others are served, and unread work ends."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.gateway.calls import holding, request
from tests.gateway.support import running_gateway, until
from tests.runtime.http2 import PREFACE, frame, literal

NO_WINDOW = frame(4, 0, 0, struct.pack(">HI", 4, 0))
"""SETTINGS with an initial window of 0: no answer is read."""
OPENED = frame(4, 1, 0, b"")


def headers(method: str) -> bytes:
    fields = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", f"/hart.v1.Images/{method}".encode()),
        (b":authority", b"x"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return b"".join(literal(name, value) for name, value in fields)


def call(stream: int, method: str, message: Any) -> bytes:
    data = message.SerializeToString()
    return frame(1, 4, stream, headers(method)) + frame(0, 1, stream, b"\0" + struct.pack(">I", len(data)) + data)


@asynccontextmanager
async def unread(port: int, calls: int, method: str, **fields: Any) -> AsyncIterator[None]:
    """So many calls on one connection, of which no answer is read."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + NO_WINDOW + OPENED)
    for number in range(calls):
        writer.write(call(2 * number + 1, method, request(**fields)))
    drain = asyncio.create_task(reader.read(-1))  # the frames that need no window
    try:
        yield
    finally:
        drain.cancel()
        writer.transport.abort()


async def test_unread_streams_lose_their_places_and_their_work_is_cancelled() -> None:
    async with running_gateway(send_seconds=3) as running:
        backpressure = asyncio.Event()
        running.stage("ar_generator").before = holding(backpressure)
        async with unread(running.app.port, 256, "GenerateStream", request_id="one"):
            await until(lambda: running.inflight >= 192)
            others = aiter(running.stub.GenerateStream(request(seed=8)))  # a place was left for them
            assert (await anext(others)).HasField("accepted")
            await until(lambda: running.inflight == 1, 20)
            await until(lambda: running.stage("ar_generator").cancelled == 1, 20)
        backpressure.set()
        assert [event async for event in others][-1].HasField("finished")


async def drawn(stub: Any) -> bool:
    try:
        await stub.Generate(request(seed=8))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # noqa: PT017
        return False
    return True


@pytest.mark.parametrize("method", ["Generate", "GenerateStream"])
async def test_unread_images_are_released_before_the_deadline(method: str) -> None:
    async with running_gateway(send_seconds=0.5, max_response_buffer_bytes=2**20, max_deadline_seconds=300) as running:
        running.stage("decoder").image = b"x" * 2**19
        async with unread(running.app.port, 3, method, num_images=1, request_id="one"):
            await until(lambda: running.stage("decoder").received)
            await until(lambda: not running.app._interceptor.working and not running.inflight, 30)
            async with asyncio.timeout(30):
                while not await drawn(running.stub):
                    await asyncio.sleep(0.1)


async def test_a_slow_reader_has_the_time_that_its_message_takes() -> None:
    async with running_gateway(send_seconds=0.5) as running:
        running.stage("decoder").image = b"x" * 2**20  # eight seconds at the slowest rate
        options = [("grpc.http2.lookahead_bytes", 65_535), ("grpc.http2.bdp_probe", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.app.port}", options=options) as channel:
            stream: Any = type(running.stub)(channel).GenerateStream(request(num_images=2))
            events: list[Any] = []
            while (event := await stream.read()) is not grpc.aio.EOF:
                events.append(event)
                await asyncio.sleep(1 if event.HasField("image") else 0)
        assert sum(event.HasField("image") for event in events) == 2
