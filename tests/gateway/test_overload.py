"""A full stage holds work back or refuses it, at the right place: fake stages on real sockets."""

import asyncio
from collections.abc import Callable

import grpc
import pytest

from runtime.errors import Overloaded
from tests.gateway.calls import holding, raising, refused, request
from tests.gateway.support import FakeStage, front, until


def room(queue: int) -> Callable[[dict[str, list[FakeStage]]], None]:
    """Lets the generator say how many may wait there."""

    def prepare(stages: dict[str, list[FakeStage]]) -> None:
        stages["ar_generator"][0].room = queue

    return prepare


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator"])
async def test_overload_is_passed_on_at_once_and_not_tried_again(stage):
    async with front(replicas={stage: 2}) as running:
        for fake in running.stages[stage]:
            fake.before = raising(Overloaded(stage, "HART_MAX_QUEUED_REQUESTS", 3.0), times=100)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (info.metadata["stage"], info.metadata["setting"]) == (stage, "HART_MAX_QUEUED_REQUESTS")
        assert sum(len(fake.received) for fake in running.stages[stage]) == 1


async def test_a_latent_waits_for_a_full_decoder_while_there_is_time():
    async with front() as running:
        running.stage("decoder").before = raising(Overloaded("decoder", "HART_MAX_QUEUED_REQUESTS", 0.02), times=3)
        await running.stub.Generate(request())
        assert len(running.stage("ar_generator").received) == 1
        assert len(running.stage("decoder").received) == 4


async def test_a_refusal_that_names_no_queue_is_not_tried_until_time_is_over():
    async with front() as running:
        running.stage("decoder").before = raising(Overloaded("decoder", "", 0.02, message="too large"), times=100)
        code, _, text = await refused(running.stub.Generate(request()))
        assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        assert len(running.stage("decoder").received) == 1


async def test_while_the_decoder_stands_still_no_more_pictures_are_begun_than_there_are_places():
    async with front(prepare=room(20), max_pending_decodes=2) as running:  # and one in work: three places
        backpressure = asyncio.Event()
        running.stage("decoder").before = holding(backpressure)
        calls = [running.stub.Generate(request(seed=seed, num_images=2)) for seed in range(4)]
        await until(lambda: len(running.stage("text_encoder").received) == 4)
        await until(lambda: len(running.stage("ar_generator").received) == 3)
        await asyncio.sleep(0.2)
        assert len(running.stage("ar_generator").received) == 3
        backpressure.set()
        await asyncio.gather(*calls)
        assert len(running.stage("ar_generator").received) == 8


async def test_time_that_runs_out_in_line_for_a_place_names_the_decoder():
    async with front(
        max_pending_decodes=1, deadline_margin_seconds=30
    ) as running:  # the answer comes long before the caller gives up
        backpressure = asyncio.Event()
        running.stage("decoder").before = holding(backpressure)
        first = running.stub.Generate(request())
        await until(lambda: running.stage("decoder").received)
        for seconds in (1, 15):  # a busy machine may not come as far as the line in one
            code, info, _ = await refused(running.stub.Generate(request(seed=8), timeout=30 + seconds))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            if info.metadata["stage"] == "decoder":
                break
        assert info.metadata["stage"] == "decoder"
        assert len(running.stage("ar_generator").received) == 1
        backpressure.set()
        await first


async def test_while_latents_wait_for_the_decoder_no_further_picture_is_begun():
    async with front(max_pending_decodes=2) as running:
        backpressure = asyncio.Event()
        running.stage("decoder").before = holding(backpressure)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(2)]
        await until(lambda: len(running.stage("decoder").received) == 2)
        calls += [running.stub.Generate(request(seed=seed)) for seed in range(2, 5)]
        await until(lambda: len(running.stage("text_encoder").received) == 5)
        await asyncio.sleep(0.1)
        assert len(running.stage("ar_generator").received) == 2
        backpressure.set()
        await asyncio.gather(*calls)
        assert len(running.stage("ar_generator").received) == 5


async def test_what_the_generators_cannot_hold_is_refused_before_it_costs_a_verdict():
    async with front(prepare=room(2)) as running:  # and one in work
        backpressure = asyncio.Event()
        running.stage("ar_generator").before = holding(backpressure)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(3)]
        await until(lambda: len(running.stage("ar_generator").received) == 3)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (info.metadata["stage"], info.metadata["setting"]) == ("ar_generator", "HART_MAX_QUEUED_REQUESTS")
        assert len(running.stage("safety").received) == 3
        shed = {"stage": "gateway", "reason": "queue_full"}
        assert running.app.telemetry.registry.get_sample_value("hart_shed_total", shed) == 1
        backpressure.set()
        await asyncio.gather(*calls)
        await running.stub.Generate(request(num_images=8))


async def test_more_requests_than_the_gateway_takes_are_refused():
    async with front(max_ongoing_requests=1) as running:
        backpressure = asyncio.Event()
        running.stage("safety").before = holding(backpressure)
        held = running.stub.Generate(request())
        await until(lambda: running.stage("safety").received)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["setting"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "HART_MAX_ONGOING_REQUESTS")
        backpressure.set()
        await held


async def test_answers_that_nobody_reads_take_no_more_memory_than_they_may():
    async with front(max_response_buffer_bytes=2**20) as running:
        running.stage("decoder").image = b"x" * (3 * 2**20)  # a connection takes some of it unread, not eight times it
        events = aiter(running.stub.GenerateStream(request(num_images=8)))
        while not (await anext(events)).HasField("image"):
            pass
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["setting"]) == (
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "HART_MAX_RESPONSE_BUFFER_BYTES",
        )
        assert [event.HasField("image") async for event in events].count(True) == 7
        await running.stub.Generate(request())


async def test_callers_who_share_a_connection_are_refused_by_name_and_leave_places_for_others():
    async with front(prepare=room(1000)) as running:
        backpressure = asyncio.Event()
        running.stage("safety").before = holding(backpressure)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(400)]
        await until(lambda: sum(call.done() for call in calls) == 400 - 192)
        for call in calls:
            if call.done():
                code, info, _ = await refused(call)
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert info.metadata["setting"] == "HART_CONNECTION_REQUESTS"
        backpressure.set()
        await asyncio.gather(*calls, return_exceptions=True)
