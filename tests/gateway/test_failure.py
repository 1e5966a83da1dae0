"""gateway.stages.client: failing stages, retries and the resulting status. Fake stages on real sockets."""

from typing import Any

import grpc

from runtime.errors import InvalidRequest, StageUnavailable
from tests.gateway.calls import raising, refused, request
from tests.gateway.support import running_gateway


async def test_failed_attempt_is_retried_with_the_same_seed() -> None:
    async with running_gateway(replicas={"ar_generator": 2}) as running:
        for fake in running.stages["ar_generator"]:
            fake.before = raising(StageUnavailable("ar_generator", "dying"))
        answer = await running.stub.Generate(request())
        seen = [r for fake in running.stages["ar_generator"] for r in fake.received]
        assert len(seen) == 3
        assert {(r.seed, r.request_id) for r in seen} == {(7, answer.report.request_id)}
        call = next(c for c in answer.report.timings.calls if c.stage == "ar_generator")
        assert call.retries == 2


async def test_progress_stays_monotonic_across_a_retry() -> None:
    async with running_gateway(replicas={"ar_generator": 2}) as running:
        died: list[Any] = []

        async def die_once(_: Any, scale: int) -> None:
            if scale == 2 and not died:
                died.append(scale)
                raise StageUnavailable("ar_generator", "dying")

        for fake in running.stages["ar_generator"]:
            fake.at_scale = die_once
        events = [event async for event in running.stub.GenerateStream(request())]
        assert died
        assert [e.progress.scale for e in events if e.HasField("progress")] == [0, 1, 2]
        assert sum(len(fake.received) for fake in running.stages["ar_generator"]) == 2


async def test_retries_stop_when_the_stage_budget_is_spent() -> None:
    async with running_gateway(retry_burst=2, retry_ratio=0, retry_per_second=0) as running:
        running.stage("decoder").before = raising(StageUnavailable("decoder", "dying"), times=100)
        codes = [(await refused(running.stub.Generate(request(seed=seed))))[0] for seed in range(3)]
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 3
        assert len(running.stage("decoder").received) <= 3 + 2


async def test_internal_error_exposes_its_id_alone() -> None:
    async with running_gateway() as running:
        running.stage("decoder").before = raising(RuntimeError("secret path /etc/shadow"))
        code, info, text = await refused(running.stub.Generate(request()))
        assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert info.metadata["error_id"]
        assert "shadow" not in text


async def test_stage_rejecting_gateway_input_is_an_internal_error() -> None:
    async with running_gateway() as running:
        running.stage("decoder").before = raising(InvalidRequest.field("latent.data", "must hold finite numbers only"))
        code, info, text = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.INTERNAL, "decoder")
        assert "latent" not in text
