"""What a scrape and a collector get beside counters: exemplars, log records, the process, the build, the model."""

from __future__ import annotations

import http.client
import logging
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from common.version import VERSION
from runtime.observability import logs
from runtime.observability.telemetry import Telemetry
from tests.runtime.support import Running, request

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def scrape(telemetry: Telemetry) -> dict[str, Any]:
    """The families of an OpenMetrics scrape."""
    server = telemetry.serve_metrics("127.0.0.1", 0)
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    connection.request("GET", "/metrics", headers={"Accept": OPEN_METRICS})
    text = connection.getresponse().read().decode()
    connection.close()
    server.close()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_a_bucket_carries_the_trace_of_a_call_in_it() -> None:
    telemetry = Telemetry("gateway", span_exporter=InMemorySpanExporter())
    with telemetry.tracing.span("fast", kind=SpanKind.SERVER):
        telemetry.metrics.count(grpc.StatusCode.OK, 0.2)
    with telemetry.tracing.span("slow", kind=SpanKind.SERVER) as slow:
        telemetry.metrics.count(grpc.StatusCode.OK, 20.0)
    samples = scrape(telemetry)["hart_request_duration_seconds"].samples
    shown = {s.labels["le"]: s.exemplar for s in samples if s.name.endswith("_bucket") and s.exemplar}
    assert set(shown) == {"0.25", "30.0"}
    assert shown["30.0"].labels["trace_id"] == f"{slow.get_span_context().trace_id:032x}"
    assert shown["30.0"].labels["span_id"] == f"{slow.get_span_context().span_id:016x}"
    assert shown["30.0"].value == 20.0
    telemetry.shutdown()


def test_a_convention_s_histogram_has_exemplars_too() -> None:
    telemetry = Telemetry("gateway", span_exporter=InMemorySpanExporter())
    with telemetry.tracing.span("one", kind=SpanKind.SERVER):
        telemetry.metrics.count_rpc("hart.v1.Images/Generate", grpc.StatusCode.OK, 0.2)
    (family,) = [f for name, f in scrape(telemetry).items() if name == "rpc_server_call_duration_seconds"]
    assert any(sample.exemplar for sample in family.samples)
    telemetry.shutdown()


def test_calls_without_a_sampled_trace_have_no_exemplar() -> None:
    telemetry = Telemetry("gateway")
    telemetry.metrics.count(grpc.StatusCode.OK, 0.2)
    assert not any(s.exemplar for s in scrape(telemetry)["hart_request_duration_seconds"].samples)
    telemetry.shutdown()


async def test_a_served_call_leaves_its_trace_and_its_peer(launch: Any) -> None:
    running: Running = await launch(ratio=1.0)
    await running.stub.Decode(request(1.0))
    families = scrape(running.app.telemetry)
    (server,) = [span for span in running.spans.get_finished_spans() if span.kind is SpanKind.SERVER]
    trace = f"{server.context.trace_id:032x}"
    exemplars = [s.exemplar for s in families["hart_request_duration_seconds"].samples if s.exemplar]
    assert {one.labels["trace_id"] for one in exemplars} == {trace}
    assert server.attributes is not None
    assert server.attributes["network.peer.address"] == "127.0.0.1"
    assert server.attributes["rpc.response.status_code"] == "OK"
    (calls,) = [s for s in families["rpc_server_call_duration_seconds"].samples if s.name.endswith("_count")]
    assert calls.labels == {
        "rpc_system_name": "grpc",
        "rpc_method": server.attributes["rpc.method"],
        "rpc_response_status_code": "OK",
    }


def test_a_scrape_has_the_process_the_build_and_the_model() -> None:
    telemetry = Telemetry("decoder")

    @dataclass
    class Model:
        name: str
        digest: str

    model = Model("emoji", "")
    telemetry.metrics.observe_model(lambda: model)
    families = scrape(telemetry)
    assert families["process_resident_memory_bytes"].samples[0].value > 10**6
    assert families["hart_build_info"].samples[0].labels["version"] == VERSION
    assert "hart_model_info" not in families
    model.digest = "abc"
    (loaded,) = scrape(telemetry)["hart_model_info"].samples
    assert loaded.labels == {"stage": "decoder", "model": "emoji", "digest": "abc"}
    telemetry.shutdown()


def test_metrics_have_units() -> None:
    telemetry = Telemetry("decoder", span_exporter=InMemorySpanExporter())
    telemetry.metrics.count(grpc.StatusCode.OK, 0.2)
    telemetry.metrics.transfer_bytes.record(7)
    families = scrape(telemetry)
    assert families["hart_request_duration_seconds"].unit == "seconds"
    assert families["hart_transfer_bytes"].unit == "bytes"
    telemetry.shutdown()


class Collector(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self) -> None:
        self.records: list[Any] = []

    def Export(self, message: Any, context: Any) -> Any:
        self.records += [r for one in message.resource_logs for scope in one.scope_logs for r in scope.log_records]
        return logs_service_pb2.ExportLogsServiceResponse()


@pytest.fixture
def collector() -> Any:
    server, collector = grpc.server(futures.ThreadPoolExecutor(2)), Collector()
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield collector, port
    root.handlers[:] = before
    root.setLevel(level)
    server.stop(None)


def test_log_records_reach_the_collector_with_trace_and_span(collector: tuple[Collector, int]) -> None:
    received, port = collector
    telemetry = Telemetry("gateway", otlp_endpoint=f"http://127.0.0.1:{port}", otlp_logs=True)
    logging.getLogger().setLevel("INFO")
    with telemetry.tracing.span("Generate") as span:
        logs.audit("generate", caller="ada", code="OK")
        logging.getLogger("hart.test").error("lost %s", "device", exc_info=ValueError("x"))
    telemetry.shutdown()
    audit, error = received.records
    context = span.get_span_context()
    assert int.from_bytes(audit.trace_id, "big") == context.trace_id
    assert int.from_bytes(audit.span_id, "big") == context.span_id
    words = {one.key: one.value.string_value for one in audit.attributes}
    assert words["hart.audit.caller"] == "ada"
    assert error.body.string_value == "lost device"
    assert error.severity_text == "ERROR"
    assert "ValueError" in {one.key: one.value.string_value for one in error.attributes}["exception.type"]


def test_without_the_setting_no_log_record_is_sent(collector: tuple[Collector, int]) -> None:
    received, port = collector
    telemetry = Telemetry("gateway", otlp_endpoint=f"http://127.0.0.1:{port}")
    logging.getLogger("hart.test").error("x")
    telemetry.shutdown()
    assert received.records == []
