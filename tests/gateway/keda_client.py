"""A client of KEDA's published contract."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from benchmarks.harness.ports import free_port
from gateway.config import GatewaySettings
from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc
from tests.gateway.support import Prepare, RunningGateway, running_gateway


@asynccontextmanager
async def scaling_gateway(
    replicas: dict[str, int] | None = None, prepare: Prepare = lambda stages: None, **settings: Any
) -> AsyncIterator[tuple[RunningGateway, "externalscaler_pb2_grpc.ExternalScalerAsyncStub"]]:
    """A running gateway with a scaler port, and a stub for it."""
    settings = {"scaler_port": free_port(), **settings}
    async with running_gateway(replicas, prepare, **settings) as running, scaler_of(running) as scaler:
        yield running, scaler


@asynccontextmanager
async def scaler_of(running: RunningGateway) -> AsyncIterator["externalscaler_pb2_grpc.ExternalScalerAsyncStub"]:
    """A stub for the scaler port of a gateway."""
    settings = running.app.settings
    assert isinstance(settings, GatewaySettings)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{settings.scaler_port}") as channel:
        yield externalscaler_pb2_grpc.ExternalScalerStub(channel)


def scaled_object(**metadata: str) -> externalscaler_pb2.ScaledObjectRef:
    return externalscaler_pb2.ScaledObjectRef(name="x", namespace="y", scalerMetadata=metadata)
