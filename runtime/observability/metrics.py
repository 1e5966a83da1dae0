"""The metrics of a process and their names."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Protocol

import grpc
from opentelemetry.metrics import Meter

from common.version import VERSION
from runtime.observability import semconv
from runtime.observability.instruments import Counter, Gauge, Histogram, ObservedGauge, ObservedInfo

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
CODES = ("OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL")
BYTES = tuple(float(4**n) for n in range(4, 15))
S, BY = "s", "By"
REQUEST, CALL, IMAGE, REPLICA, PIXEL = "{request}", "{call}", "{image}", "{replica}", "{pixel}"
"""Units by the Unified Code for Units of Measure; those in braces are only names."""


class Device(Protocol):
    """A source of a device's memory use, in bytes."""

    def memory(self) -> int:
        """In use, by all processes that share the device."""

    def allocated(self) -> int:
        """In use by this process."""

    def capacity(self) -> int:
        """The device's total."""


class Model(Protocol):
    """A model's name and digest."""

    name: str
    digest: str


class Metrics:
    """All metrics of a process. Each series has the label `stage`: this process's stage, or the stage that it
    describes."""

    def __init__(self, meter: Meter, stage: str) -> None:
        own = {"stage": stage}
        self.stage = stage
        self.requests = Counter(meter, "hart_requests", REQUEST, "Finished requests, by status code.", own)
        self.request_seconds = Histogram(
            meter, "hart_request_duration_seconds", S, "Duration of requests.", own, SECONDS
        )
        self.inflight = Gauge(meter, "hart_inflight", CALL, "Calls in progress.", own)
        self.queue_depth = ObservedGauge(meter, "hart_queue_depth", REQUEST, "Requests in the queue.", own)
        self.queue_limit = ObservedGauge(meter, "hart_queue_limit", REQUEST, "Max requests in the queue.", own)
        self.queue_seconds = Histogram(meter, "hart_queue_duration_seconds", S, "Time in the queue.", own, SECONDS)
        self.compute_seconds = Histogram(
            meter, "hart_compute_duration_seconds", S, "Engine time of a batch.", own, SECONDS
        )
        self.batch_size = Histogram(meter, "hart_batch_size", REQUEST, "Requests in a batch.", own, SIZES)
        self.scale_seconds = Histogram(meter, "hart_scale_duration_seconds", S, "Engine time of a scale.", own, SECONDS)
        self.transfer_bytes = Histogram(meter, "hart_transfer_bytes", BY, "Bytes sent between stages.", own, BYTES)
        self.load = ObservedGauge(
            meter, "hart_load", "{capacity}", "Queued plus running cost, divided by capacity.", own
        )
        self.replicas = ObservedGauge(meter, "hart_replicas", REPLICA, "Replicas of a stage, by state.", {})
        self.replicas_min = ObservedGauge(
            meter, "hart_replicas_min", REPLICA, "Min replicas that a stage should have.", {}
        )
        self.device_memory = ObservedGauge(meter, "hart_device_memory_bytes", BY, "Memory of the device, by kind.", own)
        self.cache_hits = Counter(meter, "hart_cache_hits", REQUEST, "Requests served from a cache.", own)
        self.cancelled = Counter(meter, "hart_cancelled", CALL, "Calls cancelled by the client.", own)
        self.shed = Counter(meter, "hart_shed", REQUEST, "Requests refused to limit load, by reason.", own)
        self.retries = Counter(meter, "hart_retries", "{attempt}", "Retried attempts, by called stage.", {})
        self.verdicts = Counter(meter, "hart_safety_verdicts", "{verdict}", "Safety verdicts, by policy.", own)
        self.images = Counter(meter, "hart_images", IMAGE, "Images drawn, by caller.", own)
        self.pixels = Counter(meter, "hart_pixels", PIXEL, "Pixels drawn, by caller.", own)
        self.caller_requests = Counter(
            meter, "hart_caller_requests", REQUEST, "Finished requests, by caller and status code.", own
        )
        self.first_preview_seconds = Histogram(
            meter, "hart_first_preview_duration_seconds", S, "Time from a request's arrival to its first preview.", own,
            SECONDS,
        )  # fmt: skip
        self.build_info = ObservedInfo(meter, "hart_build_info", "The program's version.", own)
        self.model_info = ObservedInfo(meter, "hart_model_info", "The model, by name and digest.", own)
        self.rpc_seconds = Histogram(
            meter, semconv.RPC_SERVER_CALL_DURATION, S, "Duration of calls, by method.", {}, SECONDS
        )
        self.gen_ai_seconds = Histogram(
            meter, semconv.GEN_AI_SERVER_REQUEST_DURATION, S, "Duration of requests, by model.", {}, SECONDS
        )
        self._start_series()

    def _start_series(self) -> None:
        for code in CODES:
            self.requests.add(0, code=code)
        self.cancelled.add(0)
        self.build_info.observe("", lambda: {"version": VERSION, "python": platform.python_version()})

    def count(self, code: grpc.StatusCode, seconds: float) -> None:
        """Record a finished request: its status code and its duration in seconds."""
        self.requests.add(code=code.name)
        self.request_seconds.record(seconds, code=code.name)

    def count_rpc(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        """Record a call of a gRPC method ("package.Service/Method") by OpenTelemetry's conventions."""
        labels = {
            semconv.RPC_SYSTEM_NAME: semconv.GRPC,
            semconv.RPC_METHOD: method,
            semconv.RPC_RESPONSE_STATUS_CODE: code.name,
        }
        self.rpc_seconds.record(seconds, **labels)

    def observe_model(self, model: Callable[[], Model]) -> None:
        """Read the served model's name and digest at each export. Without a digest it is not loaded yet."""

        def labels() -> dict[str, str]:
            found = model()
            return {"model": found.name, "digest": found.digest} if found.digest else {}

        self.model_info.observe("", labels)

    def observe_device(self, device: Device) -> None:
        """Read the device's memory at each export."""
        for kind, source in (("used", device.memory), ("allocated", device.allocated), ("total", device.capacity)):
            self.device_memory.observe(source, kind=kind)
