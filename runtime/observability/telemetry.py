"""The OpenTelemetry providers of a process. Create them once and pass them on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from urllib.parse import urlsplit

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from prometheus_client import CollectorRegistry, ProcessCollector

from runtime.observability import logs, semconv
from runtime.observability.exemplars import ExemplarReader
from runtime.observability.metrics import Metrics
from runtime.observability.metrics_server import MetricsServer
from runtime.observability.otlp_logs import OtlpLogHandler
from runtime.observability.tail_sampling import ErrorTailSampler, RecordAllSampler
from runtime.observability.tracing import Tracing
from runtime.settings import is_loopback

log = logging.getLogger(__name__)


class Telemetry:
    """Owns the providers of one process.

    `otlp_endpoint`: "http://host:4317" (plaintext) or "https://host:4317"; empty: no export. `trace_ratio`: fraction of
    requests whose spans are exported; failed requests are always exported. `span_exporter` replaces OTLP in tests.
    `otlp_metrics`, `otlp_logs`: also export these to the endpoint.
    """

    def __init__(
        self,
        stage: str,
        *,
        otlp_endpoint: str = "",
        otlp_metrics: bool = False,
        otlp_logs: bool = False,
        trace_ratio: float = 1.0,
        version: str = "",
        span_exporter: SpanExporter | None = None,
    ) -> None:
        resource = Resource.create(
            {semconv.SERVICE_NAME: f"hart-{stage}", semconv.SERVICE_NAMESPACE: "hart"} | _version(version)
        )
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        readers: list[MetricReader] = [ExemplarReader(self.registry)]
        if otlp_endpoint and otlp_metrics:
            readers.append(_otlp_metrics(otlp_endpoint))
        self._meters = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)
        self._traces = TracerProvider(sampler=RecordAllSampler(trace_ratio), resource=resource, shutdown_on_exit=False)
        if span_exporter is not None:
            self._traces.add_span_processor(ErrorTailSampler(SimpleSpanProcessor(span_exporter)))
        elif otlp_endpoint:
            self._traces.add_span_processor(ErrorTailSampler(BatchSpanProcessor(_otlp_spans(otlp_endpoint))))
        self._logs = _otlp_logs(otlp_endpoint, resource) if otlp_endpoint and otlp_logs else None
        self.stage = stage
        self.metrics = Metrics(self._meters.get_meter("hart"), stage)
        self.tracing = Tracing(self._traces, stage)

    def serve_metrics(self, host: str, port: int) -> MetricsServer:
        """Serve metrics to Prometheus over HTTP. Raises OSError if the port is in use."""
        return MetricsServer(self.registry, host, port)

    def shutdown(self) -> None:
        """Export pending spans and metrics, then stop."""
        for provider in (self._traces, self._meters, self._logs):
            with suppress(Exception):  # an unreachable collector must not break a graceful shutdown
                if provider is not None:
                    provider.shutdown()


def _version(version: str) -> dict[str, str]:
    return {semconv.SERVICE_VERSION: version} if version else {}


def _channel_options(endpoint: str) -> tuple[tuple[str, int], ...]:
    """Bypass the environment's proxy for a collector on this machine."""
    return (("grpc.enable_http_proxy", 0),) if is_loopback(urlsplit(endpoint).hostname or "") else ()


def _otlp_spans(endpoint: str) -> SpanExporter:
    # imported here: the import is slow and only needed with a collector
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(
        endpoint=endpoint,
        insecure=endpoint.startswith("http://"),
        timeout=5,
        channel_options=_channel_options(endpoint),  # type: ignore[arg-type]
    )


def _otlp_logs(endpoint: str, resource: Resource) -> LoggerProvider:
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import (
        OTLPLogExporter,  # imported here for the same reason
    )

    exporter = OTLPLogExporter(
        endpoint=endpoint,
        insecure=endpoint.startswith("http://"),
        timeout=5,
        channel_options=_channel_options(endpoint),  # type: ignore[arg-type]
    )
    provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    logs.also_to(OtlpLogHandler(provider))
    return provider


def _otlp_metrics(endpoint: str) -> MetricReader:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import (
        OTLPMetricExporter,  # imported here for the same reason
    )

    exporter = OTLPMetricExporter(
        endpoint=endpoint,
        insecure=endpoint.startswith("http://"),
        timeout=5,
        channel_options=_channel_options(endpoint),  # type: ignore[arg-type]
    )
    return PeriodicExportingMetricReader(exporter, export_interval_millis=15_000)


__all__: Sequence[str] = ("MetricsServer", "Telemetry")
