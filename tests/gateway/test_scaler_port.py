"""gateway.api.keda_scaler on its own port, gateway.routing.peers: what callers may not ask, and several gateways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from hart.v1 import images_pb2_grpc

from benchmarks.harness.ports import free_port
from gateway.config import GatewaySettings
from gateway.keda import externalscaler_pb2_grpc
from runtime.settings import SettingsError
from tests.gateway.calls import request
from tests.gateway.keda_client import scaled_object, scaler_of, scaling_gateway
from tests.gateway.support import RunningGateway, running_gateway, until
from tests.runtime.certificates import Authority

GENERATOR = scaled_object(stage="ar_generator")
KEY = (("authorization", "Bearer secret"),)
pytestmark = pytest.mark.usefixtures("short_first_probe")


async def services(running: RunningGateway, metadata: tuple[tuple[str, str], ...] = ()) -> list[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    call = stub.ServerReflectionInfo(iter([question]), metadata=metadata)
    async for answer in call:
        return [service.name for service in answer.list_services_response.service]
    raise AssertionError("no answer")


async def test_callers_cannot_reach_the_scaler_on_the_port_of_the_images_api() -> None:
    async with scaling_gateway() as (running, _):
        wrong: externalscaler_pb2_grpc.ExternalScalerAsyncStub = externalscaler_pb2_grpc.ExternalScalerStub(
            running.channel
        )
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await wrong.IsActive(GENERATOR)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert "externalscaler.ExternalScaler" not in await services(running)


async def test_the_scalers_port_serves_no_images_and_its_own_health() -> None:
    async with scaling_gateway() as (running, _):
        assert isinstance(running.app.settings, GatewaySettings)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{running.app.settings.scaler_port}") as channel:
            asked = health_pb2.HealthCheckRequest(service="externalscaler.ExternalScaler")
            answer = await health_pb2_grpc.HealthStub(channel).Check(asked)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await images_pb2_grpc.ImagesStub(channel).Generate(request())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_reflection_requires_an_api_key_where_calls_do() -> None:
    async with scaling_gateway(api_keys="a=secret") as (running, scaler):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await services(running)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "hart.v1.Images" in await services(running, KEY)
        assert not (await scaler.IsActive(GENERATOR)).result  # KEDA has no key


async def test_a_gateway_without_a_scaler_port_has_no_scaler() -> None:
    async with running_gateway() as running:
        served = ["grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection", "hart.v1.Images"]
        assert await services(running) == served


def test_peers_without_a_scaler_port_are_refused() -> None:
    with pytest.raises(SettingsError, match="HART_SCALER_PEERS='a:1' requires HART_SCALER_PORT"):
        GatewaySettings.load(scaler_peers="a:1")


def test_peers_with_tls_need_an_authority() -> None:
    with pytest.raises(SettingsError, match="HART_SCALER_PEERS='a:1' requires HART_STAGE_TLS_CA"):
        GatewaySettings.load(scaler_port=1, scaler_peers="a:1", tls_cert="c", tls_key="k")


@pytest.mark.parametrize("text", ["a", "dns:///a", "kubernetes://n/s"])
def test_peers_that_name_no_port_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="HART_SCALER_PEERS"):
        GatewaySettings.load(scaler_port=1, scaler_peers=text)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.routing.peers.POLL_SECONDS", 0.02)
    monkeypatch.setattr("gateway.routing.peers.MAX_AGE", 0.5)


@asynccontextmanager
async def two_gateways(tmp_path: Path, **more: str) -> AsyncIterator[tuple[RunningGateway, RunningGateway]]:
    """Two gateways that ask one another and whose generators are those of an empty file."""
    (tmp_path / "generators").touch()
    ports = [free_port() for _ in range(2)]
    settings: dict[str, Any] = {
        "scale_to_zero_stages": "ar_generator",
        "ar_generator": f"file://{tmp_path}/generators",
        "scaler_cooldown_seconds": 0,
        "scaler_peers": ",".join(f"127.0.0.1:{port}" for port in ports),
        **more,
    }
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(running_gateway(**settings, scaler_port=port)) for port in ports
        ]
        yield first, second


@pytest.mark.usefixtures("often")
async def test_a_request_at_another_gateway_is_pushed_and_ends(tmp_path: Path) -> None:
    async with two_gateways(tmp_path) as (asked, called), scaler_of(asked) as scaler:
        states: Any = scaler.StreamIsActive(GENERATOR)
        assert (await states.read()).result is False
        held = asyncio.ensure_future(called.stub.Generate(request()))
        assert (await asyncio.wait_for(states.read(), 60)).result is True
        assert (await scaler.IsActive(GENERATOR)).result
        held.cancel()
        assert (await asyncio.wait_for(states.read(), 60)).result is False
        states.cancel()


@pytest.mark.usefixtures("often")
async def test_a_gateway_asked_for_its_own_requests_leaves_out_its_peers(tmp_path: Path) -> None:
    async with two_gateways(tmp_path) as (asked, called), scaler_of(asked) as scaler, scaler_of(called) as other:
        held = asyncio.ensure_future(called.stub.Generate(request()))
        await until(lambda: called.inflight)
        while not (await scaler.IsActive(GENERATOR)).result:
            await asyncio.sleep(0.01)
        own = scaled_object(scope="gateway")
        assert not (await scaler.IsActive(own)).result
        assert (await other.IsActive(own)).result
        held.cancel()


@pytest.mark.usefixtures("often")
async def test_the_demand_of_a_gateway_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    async with two_gateways(tmp_path) as (asked, called), scaler_of(asked) as scaler:
        held = asyncio.ensure_future(called.stub.Generate(request()))
        while not (await scaler.IsActive(GENERATOR)).result:
            await asyncio.sleep(0.01)
        await called.app.stop()
        with pytest.raises(grpc.aio.AioRpcError):
            await held
        async with asyncio.timeout(60):
            while (await scaler.IsActive(GENERATOR)).result:
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("often")
async def test_gateways_ask_one_another_over_mutual_tls(tmp_path: Path) -> None:
    cert, key, ca = Authority().write(tmp_path / "tls")
    files = [Path(path).read_bytes() for path in (ca, key, cert)]
    async with two_gateways(tmp_path, tls_cert=cert, tls_key=key, tls_ca=ca) as (asked, called):
        secure = grpc.ssl_channel_credentials(*files)
        assert isinstance(asked.app.settings, GatewaySettings)
        async with (
            grpc.aio.secure_channel(f"localhost:{called.app.port}", secure) as channel,
            grpc.aio.secure_channel(f"localhost:{asked.app.settings.scaler_port}", secure) as to_scaler,
            scaler_of(asked) as plain,
        ):
            held = asyncio.ensure_future(images_pb2_grpc.ImagesStub(channel).Generate(request()))
            scaler = externalscaler_pb2_grpc.ExternalScalerStub(to_scaler)
            async with asyncio.timeout(60):
                while not (await scaler.IsActive(GENERATOR)).result:
                    await asyncio.sleep(0.01)
            with pytest.raises(grpc.aio.AioRpcError):
                await plain.IsActive(GENERATOR)
            held.cancel()


async def test_the_scalers_stream_ends_with_ok_when_its_gateway_drains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.keda_scaler.PUSH_SECONDS", 0.01)
    async with scaling_gateway() as (running, scaler):
        states = scaler.StreamIsActive(GENERATOR)
        await states.read()
        begun = time.monotonic()
        assert await running.app.drain(30)
        assert time.monotonic() - begun < 5  # a stream of the scaler does not delay it
        assert await states.code() is grpc.StatusCode.OK
