"""gateway.request.admission, gateway.request.executor: full stages delay or refuse requests. Real sockets."""

import asyncio
from collections.abc import Callable

import grpc
import pytest

from runtime.errors import Overloaded
from tests.gateway.calls import holding, raising, refused, request
from tests.gateway.support import FakeStage, running_gateway, until


def queue_limit(queue: int) -> Callable[[dict[str, list[FakeStage]]], None]:
    """Set the generator's queue limit."""

    def prepare(stages: dict[str, list[FakeStage]]) -> None:
        stages["ar_generator"][0].queue_limit = queue

    return prepare


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator"])
async def test_stage_overload_is_returned_without_a_retry(stage: str) -> None:
    async with running_gateway(replicas={stage: 2}) as running:
        for fake in running.stages[stage]:
            fake.before = raising(Overloaded(stage, "HART_MAX_QUEUED_REQUESTS", 3.0), times=100)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (info.metadata["stage"], info.metadata["setting"]) == (stage, "HART_MAX_QUEUED_REQUESTS")
        assert sum(len(fake.received) for fake in running.stages[stage]) == 1


async def test_decode_is_retried_while_the_decoder_queue_is_full() -> None:
    async with running_gateway() as running:
        running.stage("decoder").before = raising(Overloaded("decoder", "HART_MAX_QUEUED_REQUESTS", 0.02), times=3)
        await running.stub.Generate(request())
        assert len(running.stage("ar_generator").received) == 1
        assert len(running.stage("decoder").received) == 4


async def test_decoder_refusal_without_a_setting_is_not_retried() -> None:
    async with running_gateway() as running:
        running.stage("decoder").before = raising(Overloaded("decoder", "", 0.02, message="too large"), times=100)
        code, _, text = await refused(running.stub.Generate(request()))
        assert (code, text) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        assert len(running.stage("decoder").received) == 1


async def test_stalled_decoder_bounds_the_images_in_generation() -> None:
    async with running_gateway(prepare=queue_limit(20), max_pending_decodes=2) as running:  # and one being decoded
        release = asyncio.Event()
        running.stage("decoder").before = holding(release)
        calls = [running.stub.Generate(request(seed=seed, num_images=2)) for seed in range(4)]
        await until(lambda: len(running.stage("text_encoder").received) == 4)
        await until(lambda: len(running.stage("ar_generator").received) == 3)
        await asyncio.sleep(0.2)
        assert len(running.stage("ar_generator").received) == 3
        release.set()
        await asyncio.gather(*calls)
        assert len(running.stage("ar_generator").received) == 8


async def test_deadline_while_waiting_for_a_decode_slot_names_the_decoder() -> None:
    # With this margin the gateway responds long before the client's own deadline.
    async with running_gateway(max_pending_decodes=1, deadline_margin_seconds=30) as running:
        release = asyncio.Event()
        running.stage("decoder").before = holding(release)
        first = running.stub.Generate(request())
        await until(lambda: running.stage("decoder").received)
        for seconds in (1, 15):  # on a busy machine one second may not suffice to reach the queue
            code, info, _ = await refused(running.stub.Generate(request(seed=8), timeout=30 + seconds))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            if info.metadata["stage"] == "decoder":
                break
        assert info.metadata["stage"] == "decoder"
        assert len(running.stage("ar_generator").received) == 1
        release.set()
        await first


async def test_pending_decodes_hold_back_further_images() -> None:
    async with running_gateway(max_pending_decodes=2) as running:
        release = asyncio.Event()
        running.stage("decoder").before = holding(release)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(2)]
        await until(lambda: len(running.stage("decoder").received) == 2)
        calls += [running.stub.Generate(request(seed=seed)) for seed in range(2, 5)]
        await until(lambda: len(running.stage("text_encoder").received) == 5)
        await asyncio.sleep(0.1)
        assert len(running.stage("ar_generator").received) == 2
        release.set()
        await asyncio.gather(*calls)
        assert len(running.stage("ar_generator").received) == 5


async def test_full_generators_refuse_before_the_safety_check() -> None:
    async with running_gateway(prepare=queue_limit(2)) as running:  # and one being generated
        release = asyncio.Event()
        running.stage("ar_generator").before = holding(release)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(3)]
        await until(lambda: len(running.stage("ar_generator").received) == 3)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (info.metadata["stage"], info.metadata["setting"]) == ("ar_generator", "HART_MAX_QUEUED_REQUESTS")
        assert len(running.stage("safety").received) == 3
        shed = {"stage": "gateway", "reason": "queue_full"}
        assert running.app.telemetry.registry.get_sample_value("hart_shed_total", shed) == 1
        release.set()
        await asyncio.gather(*calls)
        await running.stub.Generate(request(num_images=8))


async def test_requests_over_max_ongoing_requests_are_refused() -> None:
    async with running_gateway(max_ongoing_requests=1) as running:
        release = asyncio.Event()
        running.stage("safety").before = holding(release)
        held = running.stub.Generate(request())
        await until(lambda: running.stage("safety").received)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["setting"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "HART_MAX_ONGOING_REQUESTS")
        release.set()
        await held


async def test_unread_responses_are_bounded_by_the_response_buffer() -> None:
    async with running_gateway(max_response_buffer_bytes=2**20) as running:
        running.stage("decoder").image = b"x" * (3 * 2**20)  # more than a connection buffers unread
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
