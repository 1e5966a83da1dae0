"""Callers that do not read their answers, and many calls of one peer: others are served, and unread work ends."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from tests.gateway.calls import holding, refused, request
from tests.gateway.support import running_gateway, until
from tests.gateway.unread import unread


async def test_an_answer_that_waits_to_be_sent_counts_as_held() -> None:
    async with running_gateway(send_seconds=30, max_response_buffer_bytes=2**20) as running:
        running.stage("decoder").image = b"x" * 2**20
        async with unread(running.app.port, 2, "Generate", num_images=1):
            await until(lambda: running.stage("decoder").received and not running.inflight)
            code, info, _ = await refused(running.stub.Generate(request()))
            assert (code, info.metadata["setting"]) == (
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "HART_MAX_RESPONSE_BUFFER_BYTES",
            )
        await until(lambda: running.app._interceptor.working == 0)


@pytest.mark.parametrize(
    ("settings", "setting", "connections"),
    [
        ({"connection_requests": 2}, "HART_CONNECTION_REQUESTS", 1),
        ({"peer_requests": 2}, "HART_PEER_REQUESTS", 3),
    ],
)
async def test_one_peer_does_not_take_every_place(settings: dict[str, Any], setting: str, connections: int) -> None:
    async with running_gateway(max_ongoing_requests=20, **settings) as running:
        backpressure = asyncio.Event()
        running.stage("safety").before = holding(backpressure)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{running.app.port}", options=options) for _ in range(connections)
        ]
        stubs = [type(running.stub)(channel) for channel in channels]
        held = [stubs[i % connections].Generate(request(seed=i)) for i in range(2)]
        await until(lambda: len(running.stage("safety").received) == 2)
        code, info, _ = await refused(stubs[-1].Generate(request()))
        assert (code, info.metadata["setting"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, setting)
        backpressure.set()
        await asyncio.gather(*held)
        await stubs[-1].Generate(request())
        for channel in channels:
            await channel.close()


async def test_a_caller_with_a_key_is_not_bound_by_its_connection() -> None:
    async with running_gateway(api_keys="mia=secret-key", connection_requests=1, peer_requests=1) as running:
        key = (("authorization", "Bearer secret-key"),)
        await asyncio.gather(*(running.stub.Generate(request(seed=i), metadata=key) for i in range(4)))
