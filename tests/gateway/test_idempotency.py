"""A repeat of a request's id is one picture's work: fake stages on real sockets."""

import asyncio
from typing import Any

import grpc
from hart.v1 import images_pb2

from tests.gateway.calls import holding, raising, refused, request
from tests.gateway.support import front, until


async def anext_all(call: Any) -> list[images_pb2.GenerateEvent]:
    return [event async for event in call]


async def test_the_same_id_twice_is_one_pictures_work():
    async with front() as running:
        backpressure = asyncio.Event()
        running.stage("ar_generator").before = holding(backpressure)
        calls = [running.stub.Generate(request(request_id="one")) for _ in range(3)]
        await until(lambda: running.stage("ar_generator").received)
        await asyncio.sleep(0.05)
        backpressure.set()
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


async def test_a_repeat_goes_on_when_the_first_caller_goes_away():
    async with front() as running:
        backpressure = asyncio.Event()
        running.stage("ar_generator").before = holding(backpressure)
        first = running.stub.Generate(request(request_id="one"))
        await until(lambda: running.stage("ar_generator").received)
        second = running.stub.Generate(request(request_id="one"))
        await until(lambda: running.inflight == 2)
        first.cancel()
        await until(lambda: running.inflight == 1)
        backpressure.set()
        assert (await second).images
        assert running.stage("ar_generator").cancelled == 0


async def test_a_repeat_with_more_time_gets_its_picture_when_the_first_callers_time_is_over():
    # At the same time, since each takes the seconds in which a busy machine has let both of them come.
    await asyncio.gather(*map(goes_on_for_the_repeat, ("safety", "ar_generator", "decoder")))


async def goes_on_for_the_repeat(stage: str) -> None:
    async with front() as running:
        backpressure = asyncio.Event()
        running.stage(stage).before = holding(backpressure)
        first = running.stub.Generate(request(request_id="one"), timeout=4)
        await until(lambda: running.stage(stage).received)
        second = running.stub.GenerateStream(request(request_id="one"), timeout=120)
        events = asyncio.ensure_future(anext_all(second))
        assert (await refused(first))[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        backpressure.set()
        found = await events
        assert [e.progress.scale for e in found if e.HasField("progress")] == [0, 1, 2]
        assert found[-1].finished.report.replayed
        assert len(running.stage("text_encoder").received) == 1, "the work went on, it was not begun again"


async def test_a_repeat_with_less_time_waits_no_longer_than_its_own():
    async with front(deadline_margin_seconds=30) as running:  # half of it is for the way of the gateway's own answer
        backpressure = asyncio.Event()
        running.stage("decoder").before = holding(backpressure)
        first = running.stub.Generate(request(request_id="one"), timeout=120)
        await until(lambda: running.stage("decoder").received)
        code, info, _ = await refused(running.stub.Generate(request(request_id="one"), timeout=16))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "decoder")
        backpressure.set()
        assert (await first).images


async def test_a_failure_is_tried_afresh_under_the_same_id():
    async with front() as running:
        running.stage("decoder").before = raising(RuntimeError("once"))
        await refused(running.stub.Generate(request(request_id="one")))
        assert (await running.stub.Generate(request(request_id="one"))).images
