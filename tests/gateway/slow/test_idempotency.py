"""gateway.request.idempotency: requests with one id share one execution. Fake stages on real sockets."""

import asyncio
from typing import Any

import grpc
from hart.v1 import images_pb2

from tests.gateway.calls import holding, refused, request
from tests.gateway.support import running_gateway, until


async def all_events(call: Any) -> list[images_pb2.GenerateEvent]:
    return [event async for event in call]


async def test_repeat_with_a_later_deadline_outlives_the_first_call() -> None:
    # Concurrently: each waits out the first call's deadline, long enough for a busy machine.
    await asyncio.gather(*map(repeat_outlives_first, ("safety", "ar_generator", "decoder")))


async def repeat_outlives_first(stage: str) -> None:
    async with running_gateway() as running:
        release = asyncio.Event()
        running.stage(stage).before = holding(release)
        first = running.stub.Generate(request(request_id="one"), timeout=4)
        await until(lambda: running.stage(stage).received)
        second = running.stub.GenerateStream(request(request_id="one"), timeout=120)
        events = asyncio.ensure_future(all_events(second))
        assert (await refused(first))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        release.set()
        found = await events
        assert [e.progress.scale for e in found if e.HasField("progress")] == [0, 1, 2]
        assert found[-1].finished.report.replayed
        assert len(running.stage("text_encoder").received) == 1, "the execution went on and was not restarted"


async def test_repeat_ends_at_its_own_earlier_deadline() -> None:
    async with running_gateway(deadline_margin_seconds=30) as running:  # half of it covers the gateway's own response
        release = asyncio.Event()
        running.stage("decoder").before = holding(release)
        first = running.stub.Generate(request(request_id="one"), timeout=120)
        await until(lambda: running.stage("decoder").received)
        code, info, _ = await refused(running.stub.Generate(request(request_id="one"), timeout=16))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "decoder")
        release.set()
        assert (await first).images
