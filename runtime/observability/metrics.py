"""The metrics of a process and their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import grpc
from opentelemetry.metrics import CallbackOptions, Meter, Observation

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
CODES = ("OK", "CANCELLED", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "INTERNAL")
BYTES = tuple(float(4**n) for n in range(4, 15))


class Counter:
    """A monotonic sum, exported as `NAME_total`. Start a series with `add(0)`: Prometheus sees no increase in the first
    value of a series."""

    def __init__(self, meter: Meter, name: str, description: str, labels: dict[str, str]) -> None:
        self._counter = meter.create_counter(name, description=description)
        self._labels = labels

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to the series of these labels."""
        self._counter.add(amount, {**self._labels, **labels})


class Gauge:
    """A value that increases and decreases in steps (`add`)."""

    def __init__(self, meter: Meter, name: str, description: str, labels: dict[str, str]) -> None:
        self._counter = meter.create_up_down_counter(name, description=description)
        self._labels = labels

    def add(self, amount: float, **labels: str) -> None:
        """Add `amount` (may be negative) to the series of these labels."""
        self._counter.add(amount, {**self._labels, **labels})


class ObservedGauge:
    """A value that is read from a callback at each export."""

    def __init__(self, meter: Meter, name: str, description: str, labels: dict[str, str]) -> None:
        self._labels = labels
        self._sources: dict[tuple[tuple[str, str], ...], Callable[[], float]] = {}
        meter.create_observable_gauge(name, callbacks=[self._read], description=description)

    def observe(self, source: Callable[[], float], **labels: str) -> None:
        """Read this series from `source`, which replaces an earlier one. It must be cheap and thread-safe."""
        self._sources[tuple(sorted({**self._labels, **labels}.items()))] = source

    def _read(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(source(), dict(labels)) for labels, source in self._sources.items()]


class Histogram:
    """A distribution, exported as `NAME_bucket`, `NAME_sum`, `NAME_count`."""

    def __init__(
        self, meter: Meter, name: str, description: str, labels: dict[str, str], bounds: Iterable[float]
    ) -> None:
        self._histogram = meter.create_histogram(
            name, description=description, explicit_bucket_boundaries_advisory=list(bounds)
        )
        self._labels = labels

    def record(self, value: float, **labels: str) -> None:
        """Add one value to the series of these labels."""
        self._histogram.record(value, {**self._labels, **labels})


class Device(Protocol):
    """What reports a device's memory, in bytes."""

    def memory(self) -> int:
        """In use, by all processes that share the device."""

    def allocated(self) -> int:
        """In use by this process."""

    def capacity(self) -> int:
        """All of it."""


class Metrics:
    """All metrics of a process. Each series has the label `stage`: this process's stage, or the stage that it
    describes."""

    def __init__(self, meter: Meter, stage: str) -> None:
        own = {"stage": stage}
        self.stage = stage
        self.requests = Counter(meter, "hart_requests", "Finished requests, by status code.", own)
        self.request_seconds = Histogram(meter, "hart_request_duration_seconds", "Duration of requests.", own, SECONDS)
        self.inflight = Gauge(meter, "hart_inflight", "Calls in progress.", own)
        self.queue_depth = ObservedGauge(meter, "hart_queue_depth", "Requests in the queue.", own)
        self.queue_limit = ObservedGauge(meter, "hart_queue_limit", "Max requests in the queue.", own)
        self.queue_seconds = Histogram(meter, "hart_queue_duration_seconds", "Time in the queue.", own, SECONDS)
        self.compute_seconds = Histogram(
            meter, "hart_compute_duration_seconds", "Engine time of a batch.", own, SECONDS
        )
        self.batch_size = Histogram(meter, "hart_batch_size", "Requests in a batch.", own, SIZES)
        self.scale_seconds = Histogram(meter, "hart_scale_duration_seconds", "Engine time of a scale.", own, SECONDS)
        self.transfer_bytes = Histogram(meter, "hart_transfer_bytes", "Bytes sent between stages.", own, BYTES)
        self.load = ObservedGauge(meter, "hart_load", "Queued plus running cost, divided by capacity.", own)
        self.replicas = ObservedGauge(meter, "hart_replicas", "Replicas of a stage, by state.", {})
        self.replicas_min = ObservedGauge(meter, "hart_replicas_min", "Min replicas that a stage should have.", {})
        self.device_memory = ObservedGauge(meter, "hart_device_memory_bytes", "Memory of the device, by kind.", own)
        self.cache_hits = Counter(meter, "hart_cache_hits", "Requests served from a cache.", own)
        self.cancelled = Counter(meter, "hart_cancelled", "Calls cancelled by the client.", own)
        self.shed = Counter(meter, "hart_shed", "Requests refused to limit load, by reason.", own)
        self.retries = Counter(meter, "hart_retries", "Retried attempts, by called stage.", {})
        self.verdicts = Counter(meter, "hart_safety_verdicts", "Safety verdicts, by policy.", own)
        for code in CODES:
            self.requests.add(0, code=code)
        self.cancelled.add(0)

    def count(self, code: grpc.StatusCode, seconds: float) -> None:
        """Record a finished request: its status code and its duration in seconds."""
        self.requests.add(code=code.name)
        self.request_seconds.record(seconds, code=code.name)

    def observe_device(self, device: Device) -> None:
        """Read the device's memory at each export."""
        for kind, source in (("used", device.memory), ("allocated", device.allocated), ("total", device.capacity)):
            self.device_memory.observe(source, kind=kind)
