"""gateway.request.idempotency: requests with one id share one execution. Fake stages on real sockets."""

import asyncio

import grpc

from tests.gateway.calls import holding, raising, refused, request
from tests.gateway.support import running_gateway, until


async def test_requests_with_one_id_share_one_execution() -> None:
    async with running_gateway() as running:
        release = asyncio.Event()
        running.stage("ar_generator").before = holding(release)
        calls = [running.stub.Generate(request(request_id="one")) for _ in range(3)]
        await until(lambda: running.inflight == 3)
        release.set()
        answers = await asyncio.gather(*calls)
        later = await running.stub.Generate(request(request_id="one"))
        events = [event async for event in running.stub.GenerateStream(request(request_id="one"))]
        assert len(running.stage("ar_generator").received) == 1
        assert len({answer.images[0].data for answer in [*answers, later]}) == 1
        assert sorted(answer.report.replayed for answer in answers) == [False, True, True]
        assert later.report.replayed
        assert [e.progress.scale for e in events if e.HasField("progress")] == [0, 1, 2]
        code, _, text = await refused(running.stub.Generate(request(request_id="one", guidance=1)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "request_id" in text


async def test_repeat_survives_cancellation_of_the_first_call() -> None:
    async with running_gateway() as running:
        release = asyncio.Event()
        running.stage("ar_generator").before = holding(release)
        first = running.stub.Generate(request(request_id="one"))
        await until(lambda: running.stage("ar_generator").received)
        second = running.stub.Generate(request(request_id="one"))
        await until(lambda: running.inflight == 2)
        first.cancel()
        await until(lambda: running.inflight == 1)
        release.set()
        assert (await second).images
        assert running.stage("ar_generator").cancelled == 0


async def test_failed_request_is_executed_again_under_the_same_id() -> None:
    async with running_gateway() as running:
        running.stage("decoder").before = raising(RuntimeError("once"))
        await refused(running.stub.Generate(request(request_id="one")))
        assert (await running.stub.Generate(request(request_id="one"))).images
