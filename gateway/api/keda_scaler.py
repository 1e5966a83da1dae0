"""KEDA's external scaler on each stage's `hart_load`, with push for scaling from zero, on a port of its own."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass

from common.stages import STAGES
from gateway.config import GatewaySettings
from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc
from gateway.request.demand import Demand
from gateway.routing.peers import SCOPE
from runtime.errors import InvalidRequest, NotFound, Overloaded
from runtime.server.peers import network_of
from runtime.server.rpc_context import RpcContext

PUSH_SECONDS = 1.0  # between two checks of the load while no request arrives
STREAM_SHARE = 0.8  # of a connection's age, which gRPC shortens by up to a tenth
MAX_WATCHERS = 64
MAX_WATCHERS_PER_HOST = 16
"""So that one host cannot use up the watchers: KEDA needs one per stage."""
METRIC = "hart_load_"


@dataclass(frozen=True)
class ScalerInputs:
    """What the scaler's answers depend on."""

    demand: Demand
    """Of this gateway."""
    peers_active: Callable[[], bool]
    """True while another gateway has demand."""
    load: Callable[[str], float]
    """A stage's load, summed over its replicas: the same at every gateway."""
    draining: asyncio.Event


class ExternalScaler(externalscaler_pb2_grpc.ExternalScalerServicer):
    """Scales the stage that a ScaledObject's trigger metadata names by `stage`; `targetLoad` overrides the setting.

    A stage is active while it has load, or a request arrived recently at one of the gateways. Without a replica only
    the latter is visible. Gateways ask one another with the metadata `scope: gateway`, for their own requests alone.
    """

    def __init__(self, inputs: ScalerInputs, settings: GatewaySettings) -> None:
        self._inputs = inputs
        self._target = settings.scaler_target_load
        self._active_seconds = settings.scaler_cooldown_seconds
        self._stream_seconds = STREAM_SHARE * min(
            settings.connection_age_seconds, settings.connection_age_grace_seconds
        )
        self._watchers: Counter[str] = Counter()

    async def IsActive(
        self, request: externalscaler_pb2.ScaledObjectRef, context: RpcContext
    ) -> externalscaler_pb2.IsActiveResponse:
        """Whether the stage needs a replica."""
        active = self._demanded() if request.scalerMetadata == SCOPE else self._active(_stage(request))
        return externalscaler_pb2.IsActiveResponse(result=active)

    async def StreamIsActive(
        self, request: externalscaler_pb2.ScaledObjectRef, context: RpcContext
    ) -> AsyncIterator[externalscaler_pb2.IsActiveResponse]:
        """The same, now and at every change. The first request to an idle cluster is pushed immediately.

        The stream ends with OK before the connection's age would break it, and when the gateway drains: KEDA reconnects
        at once after OK, and only after a growing pause after an error.
        """
        until = time.monotonic() + self._stream_seconds
        stage, host = _stage(request), network_of(context.peer())
        if self._watchers.total() >= MAX_WATCHERS or self._watchers[host] >= MAX_WATCHERS_PER_HOST:
            raise Overloaded("gateway", "watchers of the external scaler", 10.0)
        self._watchers[host] += 1
        try:
            sent: bool | None = None
            while (left := until - time.monotonic()) > 0 and not self._inputs.draining.is_set():
                arrived = self._inputs.demand.arrived
                active = self._active(stage)
                if active != sent:
                    sent = active
                    yield externalscaler_pb2.IsActiveResponse(result=active)
                with suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), min(PUSH_SECONDS, left))
        finally:
            self._watchers[host] -= 1
            self._watchers += Counter()  # drops hosts without a watcher

    async def GetMetricSpec(
        self, request: externalscaler_pb2.ScaledObjectRef, context: RpcContext
    ) -> externalscaler_pb2.GetMetricSpecResponse:
        """The target load per replica."""
        stage, target = _stage(request), self._target_of(request)
        spec = externalscaler_pb2.MetricSpec(
            metricName=METRIC + stage, targetSize=max(1, round(target)), targetSizeFloat=target
        )
        return externalscaler_pb2.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: externalscaler_pb2.GetMetricsRequest, context: RpcContext
    ) -> externalscaler_pb2.GetMetricsResponse:
        """The load summed over the replicas: KEDA divides it by their number."""
        stage = _stage(request.scaledObjectRef)
        if request.metricName and request.metricName != METRIC + stage:
            raise NotFound(f"unknown metric {request.metricName[:80]!r}; served here: {METRIC}{stage}")
        load = self._inputs.load(stage)
        if self._active(stage):  # keeps one replica while requests arrive, however small their load
            load = max(load, 0.1 * self._target_of(request.scaledObjectRef))
        value = externalscaler_pb2.MetricValue(
            metricName=METRIC + stage, metricValue=round(load), metricValueFloat=load
        )
        return externalscaler_pb2.GetMetricsResponse(metricValues=[value])

    def _active(self, stage: str) -> bool:
        return self._demanded() or self._inputs.peers_active() or self._inputs.load(stage) > 0

    def _demanded(self) -> bool:
        """Whether this gateway has a request, or had one recently."""
        demand = self._inputs.demand
        return demand.ongoing > 0 or demand.idle_seconds() < self._active_seconds

    def _target_of(self, request: externalscaler_pb2.ScaledObjectRef) -> float:
        text = request.scalerMetadata.get("targetLoad", "")
        if not text:
            return self._target
        with suppress(ValueError):
            target = float(text)
            if 0 < target < 1000:
                return target
        raise InvalidRequest.field("scalerMetadata[targetLoad]", f"must be a number over 0, not {text[:40]!r}")


def _stage(request: externalscaler_pb2.ScaledObjectRef) -> str:
    stage = request.scalerMetadata.get("stage", "")
    if stage not in STAGES:
        raise InvalidRequest.field("scalerMetadata[stage]", f"must be one of {', '.join(STAGES)}, not {stage[:40]!r}")
    return stage
