"""The gRPC server of one process: assembly, start, drain and stop. It imports no service."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

import grpc
from grpc_health.v1 import health_pb2_grpc

from common.stages import HEALTH_PORT_OFFSET, METRICS_PORT_OFFSET
from runtime import errors, tls
from runtime.observability.telemetry import MetricsServer, Telemetry
from runtime.oip.model import Model
from runtime.oip.servicer import add_models
from runtime.server.call_scope import CallScope, Guard
from runtime.server.concurrency_limit import OTHER_CALLS, ConcurrencyLimiter
from runtime.server.health import Health
from runtime.server.interceptor import CallInterceptor
from runtime.server.options import server_options
from runtime.server.reflection import add_reflection
from runtime.server.side_port import PortLimits, PortTaken, ServiceRecorder, SidePort, address_of
from runtime.settings import ProcessSettings, as_settings_error
from runtime.work.admission import Admission
from runtime.work.batcher import Batcher
from runtime.work.device_thread import DeviceThread

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)
OIP = "inference.GRPCInferenceService"
_OIP_ALWAYS = frozenset(f"{OIP}/{m}" for m in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata"))
HEALTH_LIMITS = PortLimits(calls=2_000, calls_per_connection=8)
"""250 connections that hold their calls would lock out a kubelet, until the timeout of their messages."""


class App:
    """The container in which a service is assembled.

    `build` functions add servicers (`add`), Open Inference Protocol models (`add_model`), guards (`guard`), start-up
    work such as loading and warm-up (`on_start`), and shutdown work (`on_stop`). The port opens before the start-up
    work: the process is alive at once. It is ready (each service's full name in grpc.health.v1) after that work.
    """

    def __init__(self, settings: ProcessSettings, stage: str, telemetry: Telemetry) -> None:
        self.settings = settings
        self.stage = stage
        self.telemetry = telemetry
        self.device_thread = DeviceThread(stage)
        self.health = Health()
        self.ready = False
        self.draining = asyncio.Event()
        self.started_at = time.monotonic()
        self.port = settings.port
        self.health_port: int | None = None
        self.metrics_port: int | None = None
        self.models: dict[str, Model] = {}
        self._names: list[str] = []
        self._starts: list[Callable[[], Awaitable[object]]] = []
        self._stops: list[Callable[[], Awaitable[object]]] = []
        self._interceptor = CallInterceptor(telemetry, self.gate, settings.receive_seconds, settings.send_seconds)
        self.calls: CallScope = self._interceptor.scope
        """Every call of the process runs in it, also those of other transports."""
        self._limiter = ConcurrencyLimiter(telemetry, settings.max_concurrent_calls)
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=server_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_calls + OTHER_CALLS,
        )
        self._side_ports: list[SidePort] = []
        self._metrics_server: MetricsServer | None = None

    # -- assembling --------------------------------------------------------------------------------------------------

    def add(self, register: Callable[[T, grpc.aio.Server], None], servicer: T) -> None:
        """Serve `servicer`. `register` is its generated `add_XServicer_to_server`."""
        recorder = ServiceRecorder(self._server)
        register(servicer, cast("grpc.aio.Server", recorder))
        self._names += recorder.names

    def add_model(self, model: Model) -> None:
        """Serve `model` over the Open Inference Protocol on the same port."""
        self.models[model.name] = model

    def guard(self, guard: Guard, *, reflection: bool = False) -> None:
        """Surround every call except health, before its message is read; reflection too, if `reflection`. Guards run in
        the order added."""
        self.calls.guards.append(guard)
        if reflection:
            self.calls.reflection_guards.append(guard)

    def side_port(self, limits: PortLimits) -> SidePort:
        """One more port. Its services are ready with the process. Open it in `on_start`."""
        side = SidePort(self.settings, self.telemetry, self.gate, self.health, limits)
        self._side_ports.append(side)
        return side

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """The process's certificate for a port; None without TLS. Raises SettingsError."""
        if not self.settings.tls:
            return None
        files = tls.Files(self.settings.tls_cert, self.settings.tls_key, self.settings.tls_ca)
        with as_settings_error(OSError, ValueError):
            return tls.server_credentials(files)

    def admission(self, *, queue_limit: int, capacity: float, setting: str = "HART_MAX_QUEUED_REQUESTS") -> Admission:
        """An admission queue that reports to this process's metrics. Create one per process."""
        return Admission(
            self.stage, queue_limit=queue_limit, capacity=capacity, setting=setting, metrics=self.telemetry.metrics
        )

    def batcher(
        self,
        run: Callable[[Sequence[T]], Sequence[R | BaseException]],
        *,
        queue_limit: int,
        max_batch: int,
        max_wait: float = 0.0,
    ) -> Batcher[T, R]:
        """A batching queue in front of the device thread, with admission, metrics and spans."""
        admission = self.admission(queue_limit=queue_limit, capacity=float(max_batch))
        batcher = Batcher(
            run,
            admission=admission,
            thread=self.device_thread,
            max_batch=max_batch,
            max_wait=max_wait,
            metrics=self.telemetry.metrics,
            tracing=self.telemetry.tracing,
        )
        self.on_stop(batcher.close)
        return batcher

    def on_start(self, function: Callable[[], Awaitable[object]]) -> None:
        """Await `function` after the port is open and before the process is ready."""
        self._starts.append(function)

    def on_stop(self, function: Callable[[], Awaitable[object]]) -> None:
        """Await `function` after the last call has ended. Functions run in reverse order."""
        self._stops.append(function)

    # -- living ------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the ports, run the start-up work, then report ready. Raises PortTaken (an OSError), which names the
        setting, and SettingsError, which names an invalid certificate."""
        if self.models:
            self.add(*add_models(self))
        self.calls.guards.append(self._limiter.guard)  # last: a call that another guard refuses takes no place
        for name in self._services():
            self.health.set(name, False)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        add_reflection([*self._names, "grpc.health.v1.Health"], self._server)
        self._open_port()
        await self._server.start()
        if self.settings.tls:
            await self._serve_plain_health()
        self._serve_metrics()
        ports = {"port": self.port, "metrics_port": self.metrics_port, "health_port": self.health_port}
        log.info("listening", extra=ports)
        for start in self._starts:
            await start()
        # Objects loaded by now live until the end. Freezing them spares each full collection about 0.1 s, which would
        # fall into a request.
        gc.collect()
        gc.freeze()
        if not self.draining.is_set():
            self.ready = True
            for name in self._services():
                self.health.set(name, True)
            log.info("ready", extra={"port": self.port, "seconds": round(time.monotonic() - self.started_at, 3)})

    def _services(self) -> list[str]:
        return [*self._names, *(name for side in self._side_ports for name in side.names)]

    def _open_port(self) -> None:
        address = address_of(self.settings.host, self.settings.port)
        credentials = self.server_credentials()
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise PortTaken("HART_PORT", address) from error

    async def _serve_plain_health(self) -> None:
        chosen = self.settings.health_port
        port = chosen if chosen is not None else (self.settings.port + HEALTH_PORT_OFFSET if self.settings.port else 0)
        side = self.side_port(HEALTH_LIMITS)
        self.health_port = await side.open("HART_HEALTH_PORT", port)

    def _serve_metrics(self) -> None:
        chosen = self.settings.metrics_port
        port = chosen if chosen is not None else (self.settings.port + METRICS_PORT_OFFSET if self.settings.port else 0)
        host = self.settings.metrics_host or self.settings.host
        try:
            self._metrics_server = self.telemetry.serve_metrics(host, port)
        except OSError as error:
            raise PortTaken("HART_METRICS_PORT", address_of(host, port)) from error
        self.metrics_port = self._metrics_server.port

    def gate(self, method: str) -> errors.HartError | None:
        """The error that refuses a call now: the process starts or drains."""
        if self.draining.is_set():
            return errors.StageUnavailable(self.stage, "it is shutting down", retry_after=1.0)
        if not self.ready and method not in _OIP_ALWAYS:
            return errors.StageUnavailable(self.stage, "it is starting", retry_after=2.0)
        return None

    async def drain(self, grace: float) -> bool:
        """Report NOT_SERVING, refuse new work, and wait up to `grace` seconds for running calls. True if all ended."""
        self.draining.set()
        self.ready = False
        self.health.set_all(False)
        log.info("draining", extra={"calls": self.calls.working})
        try:
            await asyncio.wait_for(self.calls.idle.wait(), grace)
        except TimeoutError:
            log.warning("drain timed out", extra={"calls": self.calls.working})
            return False
        return True

    async def stop(self) -> bool:
        """Close the ports and cancel running calls, then stop everything else. True if the device thread is idle."""
        await self._server.stop(0.25)  # the last responses still reach their clients
        for stop in reversed(self._stops):
            try:
                await stop()
            except Exception:
                log.exception("a shutdown function failed")
        free = await asyncio.to_thread(self.device_thread.close)
        for side in self._side_ports:
            await side.close(0)
        if self._metrics_server:
            self._metrics_server.close()
        await asyncio.to_thread(self.telemetry.shutdown)
        return free
