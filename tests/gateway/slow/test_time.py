"""runtime.deadline, gateway.request.timings: deadlines, cancellation, reported times. Fake stages, real sockets."""

import asyncio
from typing import Any

import grpc
import pytest

from tests.gateway.calls import request
from tests.gateway.support import running_gateway, until


async def test_unread_stream_ends_with_deadline_exceeded() -> None:
    async with running_gateway(default_deadline_seconds=5) as running:
        running.stage("decoder").image = bytes(3 * 2**20)  # more than connection and call buffer unread
        call: Any = running.stub.GenerateStream(request(num_images=8))  # without a deadline of its own
        assert (await call.read()).HasField("accepted")
        await until(lambda: not running.inflight)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async with asyncio.timeout(60):
                while await call.read() is not grpc.aio.EOF:
                    pass
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
