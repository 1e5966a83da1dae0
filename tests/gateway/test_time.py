"""runtime.deadline, gateway.request.timings: deadlines, cancellation, reported times. Fake stages, real sockets."""

import asyncio
from typing import Any

import grpc
import pytest

from gateway.config import GatewaySettings
from runtime.settings import SettingsError
from tests.gateway.calls import holding, refused, request
from tests.gateway.support import running_gateway, until


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator", "decoder"])
async def test_deadline_status_names_the_stage_in_progress(stage: str) -> None:
    async with running_gateway(deadline_margin_seconds=30) as running:  # the response precedes the client's deadline
        running.stage(stage).before = holding(asyncio.Event())
        for seconds in (1, 15):  # on a busy machine one second may not suffice to reach the stage
            code, info, _ = await refused(running.stub.Generate(request(), timeout=30 + seconds))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            if info.metadata["stage"] == stage:
                break
        assert info.metadata["stage"] == stage
        await until(lambda: running.stage(stage).cancelled == len(running.stage(stage).received))


def test_margin_over_the_default_deadline_is_refused() -> None:
    with pytest.raises(
        SettingsError, match="HART_DEADLINE_MARGIN_SECONDS=60 must be under HART_DEFAULT_DEADLINE_SECONDS=60"
    ):
        GatewaySettings.load(deadline_margin_seconds=60)


def test_default_deadline_over_the_max_deadline_is_refused() -> None:
    both = "HART_DEFAULT_DEADLINE_SECONDS=400 must not be over HART_MAX_DEADLINE_SECONDS=300"
    with pytest.raises(SettingsError, match=both):
        GatewaySettings.load(default_deadline_seconds=400)


async def test_stage_deadline_is_the_remaining_time_less_the_margin() -> None:
    ends: dict[str, Any] = {"drain_seconds": 3000, "connection_age_grace_seconds": 3000}
    async with running_gateway(
        deadline_margin_seconds=50, default_deadline_seconds=2000, max_deadline_seconds=3000, **ends
    ) as running:
        await running.stub.Generate(request())
        await running.stub.Generate(request(), timeout=1000)
        await running.stub.Generate(request(), timeout=10_000)
        for left, limit in zip(running.stage("decoder").left, (1950, 950, 2950), strict=True):
            assert limit - 40 < left <= limit + 40  # gRPC rounds these to ten seconds


async def test_critical_calls_and_gateway_time_add_up_to_wall_time() -> None:
    async with running_gateway() as running:
        timings = (await running.stub.Generate(request(num_images=2))).report.timings
    critical = [call for call in timings.calls if call.critical]
    assert [call.stage for call in critical if call.stage in ("ar_generator", "decoder")] == ["ar_generator", "decoder"]
    assert len([call for call in critical if call.stage in ("safety", "text_encoder")]) == 1
    assert critical[-1].image_index == critical[-2].image_index
    stages = sum(call.queue_seconds + call.compute_seconds for call in critical)
    assert stages + timings.gateway_seconds == pytest.approx(timings.wall_seconds)
    assert timings.gateway_seconds > 0
    assert all(0 < call.duration_seconds <= timings.wall_seconds for call in timings.calls)
    assert [call.start_seconds for call in timings.calls] == sorted(call.start_seconds for call in timings.calls)
    assert all(call.transfer_bytes > 0 for call in timings.calls)


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator", "decoder"])
async def test_cancellation_reaches_the_active_stage(stage: str) -> None:
    async with running_gateway() as running:
        running.stage(stage).before = holding(asyncio.Event())
        call = running.stub.Generate(request())
        await until(lambda: running.stage(stage).received)
        assert sum(replica.outstanding for replica in running.replicas) >= 1
        call.cancel()
        await until(lambda: running.stage(stage).cancelled == 1)
        await until(lambda: all(replica.outstanding == 0 for replica in running.replicas))
