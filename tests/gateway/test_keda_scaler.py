"""gateway.api.keda_scaler: the external scaler, called by a gRPC client of KEDA's published contract."""

import asyncio
from typing import Any

import grpc
import pytest
from hart.v1 import images_pb2

from gateway.keda import externalscaler_pb2
from tests.gateway.calls import holding
from tests.gateway.keda_client import scaled_object, scaling_gateway
from tests.gateway.support import FakeStage, until


async def test_request_pushes_an_idle_stage_active_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.keda_scaler.PUSH_SECONDS", 600.0)  # only the request itself can cause a push
    async with scaling_gateway() as (running, scaler):
        reference = scaled_object(stage="ar_generator")
        assert not (await scaler.IsActive(reference)).result
        states: Any = scaler.StreamIsActive(reference)
        assert not (await states.read()).result
        await running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        assert (await asyncio.wait_for(states.read(), 60)).result
        states.cancel()


async def test_stage_becomes_inactive_after_its_last_request() -> None:
    async with scaling_gateway(scaler_cooldown_seconds=0.3) as (running, scaler):
        release = asyncio.Event()
        running.stage("ar_generator").before = holding(release)
        call = running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        await until(lambda: running.inflight)
        states: Any = scaler.StreamIsActive(scaled_object(stage="ar_generator"))
        assert (await states.read()).result
        release.set()
        await call
        assert not (await asyncio.wait_for(states.read(), 60)).result
        states.cancel()


async def test_scaler_metric_is_the_sum_of_replica_loads() -> None:
    def prepare(stages: dict[str, list[FakeStage]]) -> None:
        for fake, load in zip(stages["decoder"], (1.5, 0.75), strict=True):
            fake.load = load

    async with scaling_gateway({"decoder": 2}, prepare, scaler_target_load=0.5) as (_, scaler):
        reference = scaled_object(stage="decoder")
        spec = (await scaler.GetMetricSpec(reference)).metricSpecs[0]
        assert (spec.metricName, spec.targetSizeFloat) == ("hart_load_decoder", 0.5)
        request = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=reference, metricName=spec.metricName)
        value = (await scaler.GetMetrics(request)).metricValues[0]
        assert value.metricValueFloat == pytest.approx(2.25)
        assert (await scaler.IsActive(reference)).result


async def test_trigger_may_set_its_own_target_load() -> None:
    async with scaling_gateway() as (_, scaler):
        answer = await scaler.GetMetricSpec(scaled_object(stage="safety", targetLoad="2"))
        assert answer.metricSpecs[0].targetSizeFloat == 2


@pytest.mark.parametrize(
    "metadata",
    [{}, {"stage": "gateway"}, {"stage": "safety", "targetLoad": "nan"}, {"stage": "safety", "targetLoad": "-1"}],
)
async def test_invalid_scaler_metadata_is_refused_by_name(metadata: dict[str, str]) -> None:
    async with scaling_gateway() as (_, scaler):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await scaler.GetMetricSpec(scaled_object(**metadata))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "scalerMetadata[" in (caught.value.details() or "")


async def test_watchers_per_host_are_bounded_and_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.keda_scaler.MAX_WATCHERS_PER_HOST", 2)
    monkeypatch.setattr("gateway.api.keda_scaler.PUSH_SECONDS", 0.01)
    async with scaling_gateway(max_concurrent_calls=1) as (running, scaler):
        reference = scaled_object(stage="safety")
        watches = [scaler.StreamIsActive(reference) for _ in range(2)]
        for subscribe in watches:
            await subscribe.read()
        with pytest.raises(grpc.aio.AioRpcError, match="watchers of the external scaler"):
            await scaler.StreamIsActive(reference).read()
        # Watchers count against no concurrency limit of callers.
        await running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        for subscribe in watches:
            subscribe.cancel()

        async def can_watch() -> bool:
            try:
                await scaler.StreamIsActive(reference).read()
            except grpc.aio.AioRpcError:
                return False
            return True

        while not await can_watch():
            await asyncio.sleep(0.01)
