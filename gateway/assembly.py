"""Assembles the gateway: pools, registry, stages, guards, servicers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from hart.v1 import images_pb2_grpc

from common import limits
from common.stages import STAGES
from gateway.access import rate_limits
from gateway.access.authentication import Authentication
from gateway.access.peer_limits import PeerLimits
from gateway.access.rate_limits import CallerLimits
from gateway.api.keda_scaler import ExternalScaler, ScalerInputs
from gateway.api.servicer import ImagesServicer
from gateway.config import GatewaySettings
from gateway.keda import externalscaler_pb2_grpc
from gateway.request.demand import Demand
from gateway.request.executor import RequestExecutor
from gateway.routing.capacity import Capacity
from gateway.routing.description import ClusterDescription
from gateway.routing.peers import SERVICE as SCALER_SERVICE
from gateway.routing.peers import PeerDemand
from gateway.routing.registry import ReplicaRegistry
from gateway.routing.served_model import ServedModel
from gateway.routing.status import ClusterStatus
from gateway.stages.client import Stages
from runtime.calls.choice import least_outstanding
from runtime.calls.pool import Chooser, Pool
from runtime.channel import ChannelFactory
from runtime.discovery.sources import Source, StaticSource, source
from runtime.server.app import App
from runtime.server.side_port import PortLimits
from runtime.settings import as_settings_error
from runtime.tls import Files

if TYPE_CHECKING:
    from gateway.http.server import HttpServer

log = logging.getLogger(__name__)
SCALER_LIMITS = PortLimits(calls=200, calls_per_connection=100)
FIRST_PROBE_TIMEOUT = 0.5  # seconds; a missing stage does not delay the start


def build(app: App, settings: GatewaySettings, choose: Chooser = least_outstanding) -> None:
    """Adds the gateway to the app. `choose`: picks a stage's next replica. Raises SettingsError."""
    pools = {stage: _pool(app, settings, stage, choose) for stage in STAGES}
    registry = ReplicaRegistry(pools, settings.describe_interval_seconds)
    model, capacity = ServedModel(registry), Capacity(registry)
    executor = RequestExecutor(settings, Stages(pools, registry, settings, app.telemetry), model, capacity)
    _add_guards(app, settings, executor)
    description, status = ClusterDescription(registry, model, settings), ClusterStatus(pools, registry, settings)
    servicer = ImagesServicer(settings, executor, description, status)
    app.add(images_pb2_grpc.add_ImagesServicer_to_server, servicer)
    _add_scaler(app, settings, executor.demand, capacity.load)
    _observe(app, settings, executor, model)
    http = _http(app, settings, executor, model)
    if http is not None:
        app.on_start(http.start)
    app.on_start(lambda: asyncio.gather(*(pool.start(FIRST_PROBE_TIMEOUT) for pool in pools.values())))
    app.on_start(registry.start)
    for pool in pools.values():
        app.on_stop(pool.close)
    app.on_stop(registry.close)
    if http is not None:
        app.on_stop(http.stop)


def _add_guards(app: App, settings: GatewaySettings, executor: RequestExecutor) -> None:
    """Authentication first: the limits count by caller."""
    with as_settings_error(ValueError):
        app.guard(Authentication(settings), reflection=True)

    def refused() -> None:
        app.telemetry.metrics.shed.add(reason="caller_limit")
        executor.usage.refused(rate_limits.current.get())

    app.guard(
        CallerLimits(
            settings.caller_requests_per_second,
            settings.caller_burst,
            settings.caller_concurrency,
            on_refused=refused,
        )
    )
    app.guard(PeerLimits(settings))


def _observe(app: App, settings: GatewaySettings, executor: RequestExecutor, model: ServedModel) -> None:
    """The gateway's metrics that are read at a scrape, and zeros of those that count."""
    metrics = app.telemetry.metrics
    metrics.load.observe(lambda: executor.demand.ongoing / settings.max_ongoing_requests)
    for reason in ("max_response_buffer_bytes", "max_ongoing_requests", "queue_full", "preview", "caller_limit"):
        metrics.shed.add(0, reason=reason)
    for stage in STAGES:
        metrics.retries.add(0, stage=stage)
        metrics.replicas_min.observe(partial(settings.min_replicas, stage), stage=stage)
        metrics.model_info.observe(stage, partial(model.labels, stage))
    metrics.queue_depth.observe(lambda: executor.waiting_images)
    metrics.queue_limit.observe(lambda: settings.max_ongoing_requests * limits.MAX_IMAGES)


def _http(app: App, settings: GatewaySettings, executor: RequestExecutor, model: ServedModel) -> HttpServer | None:
    """The HTTP API, where a port is set. Its packages are imported only then."""
    if settings.http_port is None:
        return None
    from gateway.http.application import application
    from gateway.http.server import HttpServer

    return HttpServer(application(app, settings, executor, model), settings)


def _add_scaler(app: App, settings: GatewaySettings, demand: Demand, load: Callable[[str], float]) -> None:
    """The external scaler on its own port, where one is set. `load`: of a stage, summed over its replicas."""
    if settings.scaler_port is None:
        return
    peers = None
    if settings.scaler_peers:
        found = source(settings.scaler_peers)
        peers = PeerDemand(Pool("gateway", SCALER_SERVICE, found, channels=_channels(settings, found)), demand.wake)
        app.on_start(peers.start)
        app.on_stop(peers.close)
    inputs = ScalerInputs(demand, lambda: peers is not None and peers.active, load, app.draining)
    side = app.side_port(SCALER_LIMITS)
    side.add(externalscaler_pb2_grpc.add_ExternalScalerServicer_to_server, ExternalScaler(inputs, settings))

    async def start() -> None:
        port = await side.open("HART_SCALER_PORT", settings.scaler_port or 0, app.server_credentials())
        log.info("listening", extra={"scaler_port": port})

    app.on_start(start)


def _pool(app: App, settings: GatewaySettings, stage: str, choose: Chooser) -> Pool:
    found, metrics = source(settings.where(stage)), app.telemetry.metrics
    channels = _channels(settings, found)
    return Pool(stage, STAGES[stage].service, found, channels=channels, metrics=metrics, choose=choose)


def _channels(settings: GatewaySettings, found: Source) -> ChannelFactory:
    """Channels to stages and gateways. Raises SettingsError, also if plaintext may not reach a listed endpoint."""
    files = Files(
        settings.stage_tls_cert or settings.tls_cert,
        settings.stage_tls_key or settings.tls_key,
        settings.stage_tls_ca or settings.tls_ca,
    )
    with as_settings_error(OSError, ValueError):
        channels = ChannelFactory(files, allow_plaintext=settings.allow_plaintext)
        for endpoint in found.endpoints if isinstance(found, StaticSource) else ():
            channels.require_reach(endpoint.address)
    return channels
