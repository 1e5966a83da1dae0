"""The external scaler, asked by a gRPC client of KEDA's published contract."""

import asyncio
from typing import Any

import grpc
import pytest
from hart.v1 import images_pb2

from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc
from tests.gateway.calls import holding
from tests.gateway.support import FakeStage, Front, front, until


def stub(running: Front) -> Any:
    return externalscaler_pb2_grpc.ExternalScalerStub(running.channel)


def scaled_object(**metadata: str) -> externalscaler_pb2.ScaledObjectRef:
    return externalscaler_pb2.ScaledObjectRef(name="x", namespace="y", scalerMetadata=metadata)


async def test_an_idle_stage_is_inactive_and_a_request_pushes_it_active_at_once(monkeypatch):
    monkeypatch.setattr(
        "gateway.api.keda_scaler.PUSH_SECONDS", 600.0
    )  # nothing but the request's arrival can be what tells
    async with front() as running:
        scaler = stub(running)
        reference = scaled_object(stage="ar_generator")
        assert not (await scaler.IsActive(reference)).result
        states = scaler.StreamIsActive(reference)
        assert not (await states.read()).result
        await running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        assert (await asyncio.wait_for(states.read(), 60)).result
        states.cancel()


async def test_a_stage_is_told_inactive_when_the_last_request_is_over():
    async with front(scaler_cooldown_seconds=0.3) as running:
        backpressure = asyncio.Event()
        running.stage("ar_generator").before = holding(backpressure)
        call = running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        await until(lambda: running.inflight)
        states = stub(running).StreamIsActive(scaled_object(stage="ar_generator"))
        assert (await states.read()).result
        backpressure.set()
        await call
        assert not (await asyncio.wait_for(states.read(), 60)).result
        states.cancel()


async def test_a_request_to_a_stage_without_replicas_makes_it_active():
    async with front() as running:
        await running.end(running.stage("ar_generator"))
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        assert (await stub(running).IsActive(scaled_object(stage="ar_generator"))).result


async def test_the_metric_is_the_load_summed_over_the_replicas():
    def prepare(stages: dict[str, list[FakeStage]]) -> None:
        for fake, load in zip(stages["decoder"], (1.5, 0.75), strict=True):
            fake.load = load

    async with front({"decoder": 2}, prepare, scaler_target_load=0.5) as running:
        scaler, reference = stub(running), scaled_object(stage="decoder")
        spec = (await scaler.GetMetricSpec(reference)).metricSpecs[0]
        assert (spec.metricName, spec.targetSizeFloat) == ("hart_load_decoder", 0.5)
        request = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=reference, metricName=spec.metricName)
        value = (await scaler.GetMetrics(request)).metricValues[0]
        assert value.metricValueFloat == pytest.approx(2.25)
        assert (await scaler.IsActive(reference)).result


async def test_a_trigger_may_set_its_own_target():
    async with front() as running:
        answer = await stub(running).GetMetricSpec(scaled_object(stage="safety", targetLoad="2"))
        assert answer.metricSpecs[0].targetSizeFloat == 2


@pytest.mark.parametrize(
    "metadata",
    [{}, {"stage": "gateway"}, {"stage": "safety", "targetLoad": "nan"}, {"stage": "safety", "targetLoad": "-1"}],
)
async def test_wrong_metadata_is_refused_by_name(metadata):
    async with front() as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(running).GetMetricSpec(scaled_object(**metadata))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "scalerMetadata[" in caught.value.details()


async def test_one_host_may_not_take_every_watchers_place_and_none_is_lost(monkeypatch):
    monkeypatch.setattr("gateway.api.keda_scaler.MAX_WATCHERS_PER_HOST", 2)
    monkeypatch.setattr("gateway.api.keda_scaler.PUSH_SECONDS", 0.01)
    async with front(max_concurrent_calls=1) as running:
        reference = scaled_object(stage="safety")
        watches = [stub(running).StreamIsActive(reference) for _ in range(2)]
        for subscribe in watches:
            await subscribe.read()
        with pytest.raises(grpc.aio.AioRpcError, match="watchers of the external scaler"):
            await stub(running).StreamIsActive(reference).read()
        # They hold no place of the callers' either.
        await running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        for subscribe in watches:
            subscribe.cancel()

        async def watched_again() -> bool:
            try:
                await stub(running).StreamIsActive(reference).read()
            except grpc.aio.AioRpcError:
                return False
            return True

        while not await watched_again():
            await asyncio.sleep(0.01)
