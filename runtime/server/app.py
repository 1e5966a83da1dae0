"""The gRPC server of one process: assembly, start, drain and stop. It imports no service."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

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
from runtime.server.reflection import add_reflection
from runtime.settings import ProcessSettings, as_settings_error
from runtime.work.admission import Admission
from runtime.work.batcher import Batcher
from runtime.work.device_thread import DeviceThread

PING_SECONDS, PING_JITTER_MS = 5, 500
"""Min interval of clients' keepalive pings, with and without calls in flight, and its tolerance for clock and network
jitter."""
T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger(__name__)
OIP = "inference.GRPCInferenceService"
_OIP_ALWAYS = frozenset(f"{OIP}/{m}" for m in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata"))
HEALTH_CALLS, HEALTH_CALLS_PER_CONNECTION = 2_000, 8
"""Bounds of the plain health port: 250 connections that hold their calls would lock out a kubelet, until the timeout of
their messages."""


class PortTaken(OSError):
    """The configured address cannot be bound."""

    def __init__(self, setting: str, address: str) -> None:
        super().__init__(f"{setting}: cannot listen on {address}: is the port in use?")


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
        self._interceptor = CallInterceptor(telemetry, self._gate, settings.receive_seconds, settings.send_seconds)
        self.calls: CallScope = self._interceptor.scope
        """Every call of the process runs in it, also those of other transports."""
        self._limiter = ConcurrencyLimiter(telemetry, settings.max_concurrent_calls, self.calls.background)
        self._server = grpc.aio.server(
            interceptors=[self._interceptor],
            options=server_options(settings),
            maximum_concurrent_rpcs=settings.max_concurrent_calls + OTHER_CALLS,
        )
        self._health_server: grpc.aio.Server | None = None
        self._metrics_server: MetricsServer | None = None

    # -- assembling --------------------------------------------------------------------------------------------------

    def add(self, register: Callable[[Any, Any], None], servicer: object, *, background: bool = False) -> None:
        """Serve `servicer`. `register` is its generated `add_XServicer_to_server`. `background`: its calls have no end
        (watches), and draining does not wait for them."""
        recorder = _Recorder(self._server)
        register(servicer, recorder)
        self._names += recorder.names
        if background:
            self.calls.background |= set(recorder.names)

    def add_model(self, model: Model) -> None:
        """Serve `model` over the Open Inference Protocol on the same port."""
        self.models[model.name] = model

    def guard(self, guard: Guard) -> None:
        """Surround every call except health and reflection, before its message is read. Guards run in the order
        added."""
        self.calls.guards.append(guard)

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
        for name in self._names:
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
            for name in self._names:
                self.health.set(name, True)
            log.info("ready", extra={"port": self.port, "seconds": round(time.monotonic() - self.started_at, 3)})

    def _open_port(self) -> None:
        address = _address(self.settings.host, self.settings.port)
        try:
            if self.settings.tls:
                files = tls.Files(self.settings.tls_cert, self.settings.tls_key, self.settings.tls_ca)
                with as_settings_error(OSError, ValueError):
                    credentials = tls.server_credentials(files)
                self.port = self._server.add_secure_port(address, credentials)
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortTaken("HART_PORT", address) from error

    async def _serve_plain_health(self) -> None:
        chosen = self.settings.health_port
        port = chosen if chosen is not None else (self.settings.port + HEALTH_PORT_OFFSET if self.settings.port else 0)
        self._health_server = grpc.aio.server(
            interceptors=[
                CallInterceptor(
                    self.telemetry, lambda _: None, self.settings.receive_seconds, self.settings.send_seconds
                )
            ],
            options=[
                *server_options(self.settings),
                ("grpc.max_receive_message_length", 4096),
                ("grpc.max_concurrent_streams", HEALTH_CALLS_PER_CONNECTION),
            ],
            maximum_concurrent_rpcs=HEALTH_CALLS,
        )
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._health_server)
        address = _address(self.settings.host, port)
        try:
            self.health_port = self._health_server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortTaken("HART_HEALTH_PORT", address) from error
        await self._health_server.start()

    def _serve_metrics(self) -> None:
        chosen = self.settings.metrics_port
        port = chosen if chosen is not None else (self.settings.port + METRICS_PORT_OFFSET if self.settings.port else 0)
        host = self.settings.metrics_host or self.settings.host
        try:
            self._metrics_server = self.telemetry.serve_metrics(host, port)
        except OSError as error:
            raise PortTaken("HART_METRICS_PORT", _address(host, port)) from error
        self.metrics_port = self._metrics_server.port

    def _gate(self, method: str) -> errors.HartError | None:
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
        if self._health_server:
            await self._health_server.stop(0)
        if self._metrics_server:
            self._metrics_server.close()
        await asyncio.to_thread(self.telemetry.shutdown)
        return free


class _Recorder:
    """Takes the server's place while a servicer is registered, and records the services' names."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server
        self.names: list[str] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Pass the handlers on and record their service names."""
        self.names += [handler.service_name() for handler in handlers]
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, name: str, handlers: object) -> None:
        """Do nothing: the asyncio server does not use these handlers."""


def server_options(settings: ProcessSettings) -> list[tuple[str, int]]:
    """gRPC options of every server in the cluster."""
    return [
        ("grpc.so_reuseport", 0),  # a second process on the same port must fail instead of sharing it
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Compressed requests are refused unread: 61 KB may inflate to 60 MiB, and requests are too small to benefit.
        ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.connection_age_grace_seconds * 1000)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_SECONDS * 1000 - PING_JITTER_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]


def _address(host: str, port: int) -> str:
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"
