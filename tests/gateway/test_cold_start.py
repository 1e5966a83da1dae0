"""gateway.request.cold_start: requests for a stage at zero replicas wait for its first one. Fakes on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hart.v1 import images_pb2

from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc
from tests.gateway.calls import refused, request
from tests.gateway.keda_client import scaling_gateway
from tests.gateway.support import FakeStage, RunningGateway, serve, until

GENERATOR = externalscaler_pb2.ScaledObjectRef(name="x", namespace="y", scalerMetadata={"stage": "ar_generator"})


pytestmark = pytest.mark.usefixtures("short_first_probe")


@dataclass
class AtZero:
    """A gateway whose generators are those of a file, which lists none."""

    gateway: RunningGateway
    scaler: externalscaler_pb2_grpc.ExternalScalerAsyncStub
    start: Callable[[], Awaitable[FakeStage]]
    """Starts a replica and lists it."""
    stop: Callable[[], Awaitable[None]]
    """Lists no replica any more."""


@asynccontextmanager
async def at_zero(tmp_path: Path, **settings: Any) -> AsyncIterator[AtZero]:
    listed = tmp_path / "generators"
    listed.touch()
    settings = {"scale_to_zero_stages": "ar_generator", "ar_generator": f"file://{listed}", **settings}
    async with scaling_gateway(**settings) as (running, scaler):
        apps = []

        async def start() -> FakeStage:
            fake = FakeStage("ar_generator")
            port, app = await serve(fake)
            apps.append(app)
            listed.write_text(f"127.0.0.1:{port}\n")
            return fake

        async def stop() -> None:
            listed.write_text("")
            await until(lambda: not [r for r in running.replicas if r.stage == "ar_generator"])

        try:
            yield AtZero(running, scaler, start, stop)
        finally:
            await asyncio.gather(*(app.stop() for app in apps))


async def test_held_requests_get_their_images_from_the_first_replica(tmp_path: Path) -> None:
    async with at_zero(tmp_path) as zero:
        stub = zero.gateway.stub
        calls = [asyncio.ensure_future(stub.Generate(request(seed=seed))) for seed in range(20)]
        await until(lambda: zero.gateway.inflight == 20)
        fake = await zero.start()
        answers = await asyncio.gather(*calls)
        assert sorted(answer.images[0].seed for answer in answers) == list(range(20))
        assert len(fake.received) == 20


async def test_a_stream_says_which_stage_starts_and_then_how_long_it_takes(tmp_path: Path) -> None:
    async with at_zero(tmp_path) as zero:

        async def events() -> list[images_pb2.GenerateEvent]:
            return [event async for event in zero.gateway.stub.GenerateStream(request())]

        begun = time.monotonic()
        first = asyncio.ensure_future(events())
        await until(lambda: zero.gateway.inflight == 1)
        await asyncio.sleep(0.3)
        await zero.start()
        kinds = [event.WhichOneof("event") for event in await first]
        took = time.monotonic() - begun
        assert kinds[0] == "starting"
        assert next(kind for kind in kinds if kind != "starting") == "accepted"
        assert kinds[-1] == "finished"
        assert (await first)[0].starting == images_pb2.Starting(stage="ar_generator")
        await zero.stop()
        second = asyncio.ensure_future(events())
        await until(lambda: zero.gateway.inflight == 1)
        await zero.start()
        estimate = (await second)[0].starting.estimated_seconds
        assert 0.3 <= estimate <= took


async def test_the_external_scaler_counts_held_requests_as_demand(tmp_path: Path) -> None:
    async with at_zero(tmp_path, scaler_cooldown_seconds=0) as zero:
        scaler = zero.scaler
        assert not (await scaler.IsActive(GENERATOR)).result
        held = asyncio.ensure_future(zero.gateway.stub.Generate(request()))
        await until(lambda: zero.gateway.inflight == 1)
        assert (await scaler.IsActive(GENERATOR)).result
        held.cancel()
        await until(lambda: zero.gateway.inflight == 0)
        assert not (await scaler.IsActive(GENERATOR)).result


async def test_a_refusal_says_when_the_replica_is_expected(tmp_path: Path) -> None:
    async with at_zero(tmp_path, max_held_requests=1) as zero:
        first = asyncio.ensure_future(zero.gateway.stub.Generate(request()))
        await until(lambda: zero.gateway.inflight == 1)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await zero.gateway.stub.Generate(request())
        status = rpc_status.from_call(caught.value)
        retry, info = error_details_pb2.RetryInfo(), error_details_pb2.ErrorInfo()
        assert any(detail.Unpack(info) for detail in status.details)
        assert any(detail.Unpack(retry) for detail in status.details)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert info.metadata["setting"] == "HART_MAX_HELD_REQUESTS"
        assert retry.retry_delay.seconds == 30  # no start was measured yet
        await zero.start()
        await first


async def test_a_deadline_before_the_first_replica_is_unavailable_with_the_stage(tmp_path: Path) -> None:
    async with at_zero(tmp_path) as zero:
        code, info, _ = await refused(zero.gateway.stub.Generate(request(), timeout=1))
        assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        if code is grpc.StatusCode.UNAVAILABLE:  # the answer may lose the race against the client's own clock
            assert info.metadata["stage"] == "ar_generator"
        await until(lambda: zero.gateway.inflight == 0)


async def test_an_absent_deadline_is_the_longest(tmp_path: Path) -> None:
    settings = {"default_deadline_seconds": 0.5, "deadline_margin_seconds": 0.01}
    async with at_zero(tmp_path, **settings) as zero:
        call = asyncio.ensure_future(zero.gateway.stub.Generate(request()))
        await asyncio.sleep(1)
        assert not call.done()
        await zero.start()
        await call


async def test_a_stage_that_may_not_rest_fails_as_before(tmp_path: Path) -> None:
    async with at_zero(tmp_path, scale_to_zero_stages="decoder") as zero:
        begun = time.monotonic()
        code, info, _ = await refused(zero.gateway.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.UNAVAILABLE, "ar_generator")
        assert time.monotonic() - begun < 10


async def test_an_invalid_request_is_refused_without_waiting(tmp_path: Path) -> None:
    async with at_zero(tmp_path) as zero:
        code, _, text = await refused(zero.gateway.stub.Generate(request(guidance=99)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "guidance" in text


async def test_the_scalers_stream_ends_with_ok_before_the_connection_is_too_old(tmp_path: Path) -> None:
    async with at_zero(tmp_path, connection_age_seconds=2, connection_age_grace_seconds=300) as zero:
        call = zero.scaler.StreamIsActive(GENERATOR)
        assert [response.result async for response in call] == [False]
        assert await call.code() is grpc.StatusCode.OK
