"""Callers that do not read their answers, and many calls of one peer: others are served, and unread work ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.gateway.calls import holding, request
from tests.gateway.support import running_gateway, until
from tests.gateway.unread import unread


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
