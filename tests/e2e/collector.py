"""An in-memory trace collector: OTLP over gRPC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Wire

SERVER, CLIENT, INTERNAL = Wire.SPAN_KIND_SERVER, Wire.SPAN_KIND_CLIENT, Wire.SPAN_KIND_INTERNAL


@dataclass(frozen=True)
class Span:
    """A received span."""

    service: str
    """The process that sent it: "hart-decoder"."""
    name: str
    trace_id: str
    span_id: str
    parent: str
    """The parent's id; "" of a root."""
    kind: int
    begun: int
    """Nanoseconds since the epoch."""
    ended: int
    failed: bool
    attributes: dict[str, Any] = field(hash=False)
    links: tuple[tuple[str, str], ...]
    """(trace id, span id) of each."""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """The spans received so far."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.endpoint = ""

    def Export(self, request: Any, context: Any) -> Any:
        """Receive spans."""
        for of_resource in request.resource_spans:
            service = _attributes(of_resource.resource.attributes)["service.name"]
            self.spans += [_span(service, s) for of_scope in of_resource.scope_spans for s in of_scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def trace(self, trace_id: str) -> list[Span]:
        """The spans of a trace received so far."""
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def await_trace(self, trace_id: str, count: int, seconds: float = 60.0) -> list[Span]:
        """Wait until at least `count` spans of the trace have arrived, and for 0.5 s no more. Raises TimeoutError."""
        end, seen = time.monotonic() + seconds, -1
        while seen < count or len(self.trace(trace_id)) != seen:
            if time.monotonic() > end:
                raise TimeoutError(f"{seen} of {count} spans: {sorted(s.name for s in self.trace(trace_id))}")
            seen = len(self.trace(trace_id))
            time.sleep(0.5)
        return self.trace(trace_id)


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def Export(self, request: Any, context: Any) -> Any:
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """A running collector; its `endpoint` is a value for HART_OTLP_ENDPOINT."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(), server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0)


def _span(service: str, wire: Any) -> Span:
    return Span(
        service,
        wire.name,
        wire.trace_id.hex(),
        wire.span_id.hex(),
        wire.parent_span_id.hex(),
        wire.kind,
        wire.start_time_unix_nano,
        wire.end_time_unix_nano,
        wire.status.code == wire.status.STATUS_CODE_ERROR,
        _attributes(wire.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in wire.links),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
