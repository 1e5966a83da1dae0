"""runtime.observability: traces, metrics and logs, over real sockets where calls are involved."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import urllib.request
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client.parser import text_string_to_metric_families

from runtime import errors
from runtime.observability import logs, tracing
from runtime.observability.telemetry import Telemetry
from tests.runtime.support import Launch, Running, request, until

ALL_FAMILIES = {
    "hart_requests", "hart_request_duration_seconds", "hart_queue_depth", "hart_queue_limit",
    "hart_queue_duration_seconds",
    "hart_inflight", "hart_compute_duration_seconds", "hart_batch_size", "hart_scale_duration_seconds",
    "hart_transfer_bytes",
    "hart_load", "hart_replicas", "hart_replicas_min", "hart_device_memory_bytes", "hart_cache_hits",
    "hart_cancelled", "hart_shed", "hart_retries", "hart_safety_verdicts", "hart_build_info",
}  # fmt: skip


def scrape(port: int) -> dict[str, Any]:
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def by_name(spans: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_every_metric_is_exported_by_its_documented_name() -> None:
    telemetry = Telemetry("decoder")
    m = telemetry.metrics
    m.requests.add(code="OK")
    for histogram in (m.request_seconds, m.queue_seconds, m.compute_seconds, m.batch_size):
        histogram.record(1)
    m.scale_seconds.record(0.1, scale="3")
    m.transfer_bytes.record(1000, **{"from": "gateway", "to": "decoder"})
    m.inflight.add(1)
    m.device_memory.observe(lambda: 7, kind="allocated")
    for gauge in (m.queue_depth, m.queue_limit, m.load):
        gauge.observe(lambda: 1)
    m.replicas.observe(lambda: 2, stage="decoder", state="ready")
    m.replicas_min.observe(lambda: 1, stage="decoder")
    m.shed.add(reason="queue_full")
    m.retries.add(stage="decoder")
    m.verdicts.add(verdict="unsafe", policy="violence")
    m.cache_hits.add()
    m.cancelled.add()
    server = telemetry.serve_metrics("127.0.0.1", 0)
    families = scrape(server.port)
    assert {name for name in families if name.startswith("hart_")} == ALL_FAMILIES
    samples = {(s.name, tuple(sorted(s.labels.items()))) for f in families.values() for s in f.samples}
    assert ("hart_requests_total", (("code", "OK"), ("stage", "decoder"))) in samples
    assert ("hart_shed_total", (("reason", "queue_full"), ("stage", "decoder"))) in samples
    assert ("hart_replicas", (("stage", "decoder"), ("state", "ready"))) in samples
    assert ("hart_device_memory_bytes", (("kind", "allocated"), ("stage", "decoder"))) in samples
    verdict = (("policy", "violence"), ("stage", "decoder"), ("verdict", "unsafe"))
    assert ("hart_safety_verdicts_total", verdict) in samples
    assert ("hart_transfer_bytes_sum", (("from", "gateway"), ("stage", "decoder"), ("to", "decoder"))) in samples
    assert ("hart_scale_duration_seconds_count", (("scale", "3"), ("stage", "decoder"))) in samples
    server.close()


def test_call_counters_start_at_zero() -> None:
    telemetry = Telemetry("decoder")
    server = telemetry.serve_metrics("127.0.0.1", 0)
    samples = {(s.name, s.labels.get("code")): s.value for f in scrape(server.port).values() for s in f.samples}
    assert samples["hart_requests_total", "INTERNAL"] == samples["hart_requests_total", "UNAVAILABLE"] == 0
    assert samples["hart_cancelled_total", None] == 0
    server.close()


async def test_trace_spans_the_call_with_queue_batch_and_compute(served: Running) -> None:
    here = InMemorySpanExporter()
    caller = Telemetry("gateway", span_exporter=here)
    served.engine.release.clear()
    with caller.tracing.span("Generate", kind=SpanKind.SERVER) as root:
        calls = []
        for _ in range(3):
            with caller.tracing.call("hart.v1.Decoder/Decode", "decoder") as (_, metadata):
                calls.append(served.stub.Decode(request(), metadata=metadata))
            await until(lambda: served.engine.batches)  # the first computes alone
        await until(lambda: served.batcher.admission.queued == 2)
        served.engine.release.set()
        for call in calls:
            await call
    await until(lambda: len(served.spans.get_finished_spans()) == 12)
    spans: Any = served.spans.get_finished_spans()
    trace_id = root.get_span_context().trace_id
    assert {s.context.trace_id for s in spans} == {trace_id}
    finished: Any = here.get_finished_spans()
    clients = {s.context.span_id for s in finished if s.kind is SpanKind.CLIENT}
    servers = {s.context.span_id: s for s in spans if s.kind is SpanKind.SERVER}
    assert {s.parent.span_id for s in servers.values()} == clients
    assert all(s.attributes["rpc.method"] == "hart.v1.Decoder/Decode" for s in servers.values())
    for name in ("queue", "batch", "compute"):
        assert {s.parent.span_id for s in spans if s.name == name} == set(servers)
    pair = [s for s in spans if s.name == "batch" and s.attributes["hart.batch.size"] == 2]
    assert len(pair) == 2
    assert {link.context.span_id for link in pair[0].links} == {s.parent.span_id for s in pair}


async def test_error_traces_are_kept_at_any_ratio(launch: Launch) -> None:
    running = await launch(ratio=0.0)
    await running.stub.Decode(request(1.0))
    assert running.spans.get_finished_spans() == ()
    running.engine.fail[3.0] = RuntimeError("broken")
    with pytest.raises(grpc.aio.AioRpcError):
        await running.stub.Decode(request(3.0))
    await until(running.spans.get_finished_spans)
    kept = by_name(running.spans)
    assert set(kept) == {"hart.v1.Decoder/Decode", "queue", "batch", "compute"}
    root = kept["hart.v1.Decoder/Decode"]
    assert root.status.status_code is StatusCode.ERROR
    assert root.context.trace_flags.sampled
    assert "broken" not in str(root.to_json()), "error texts stay out of traces"


CALLER_ERRORS = [
    errors.InvalidRequest.field("seed", "must not be -1"),
    errors.PromptUnsafe(["violence"]),
    errors.NotFound("unknown model 'x'"),
    errors.Overloaded("decoder", "HART_MAX_QUEUED_REQUESTS"),
    errors.Unauthenticated("no API key"),
    errors.PermissionDenied("not yours"),
]


@pytest.mark.parametrize("error", CALLER_ERRORS, ids=lambda e: type(e).__name__)
async def test_refusal_is_no_failed_span_and_follows_the_ratio(launch: Launch, error: errors.HartError) -> None:
    for ratio in (1.0, 0.0):
        running = await launch(ratio=ratio)
        running.engine.fail[3.0] = error
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Decode(request(3.0))
        await until(lambda: running.app._interceptor.working == 0)  # noqa: B023 - awaited within the iteration
        kept = [span for span in running.spans.get_finished_spans() if span.kind is SpanKind.SERVER]
        assert len(kept) == ratio
        for span in kept:
            assert span.status.status_code is StatusCode.UNSET
            assert (span.attributes or {})["error.type"] == error.reason


@pytest.mark.parametrize(
    "error",
    [errors.StageUnavailable("decoder"), errors.DeadlineExceeded("decoder"), errors.Internal("1")],
    ids=lambda e: type(e).__name__,
)
async def test_failed_span_carries_its_reason(served: Running, error: errors.HartError) -> None:
    served.engine.fail[3.0] = error
    with pytest.raises(grpc.aio.AioRpcError):
        await served.stub.Decode(request(3.0))
    await until(lambda: served.app._interceptor.working == 0)
    status = by_name(served.spans)["hart.v1.Decoder/Decode"].status
    assert (status.status_code, status.description) == (StatusCode.ERROR, error.reason)


async def test_sampling_decision_of_the_client_is_followed(launch: Launch) -> None:
    running = await launch(ratio=0.0)
    sampled = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)
    await running.stub.Decode(request(), metadata=sampled)
    assert {f"{s.context.trace_id:032x}" for s in running.spans.get_finished_spans()} == {"a" * 32}


@pytest.mark.parametrize("value", ["", "00-zz-yy-01", "x" * 5000, "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
async def test_invalid_traceparent_is_ignored(served: Running, value: str) -> None:
    assert (await served.stub.Decode(request(), metadata=(("traceparent", value),))).image == b"1.0"


async def test_calls_are_counted_by_code_shed_and_cancelled(launch: Launch) -> None:
    running = await launch(queue_limit=1)
    running.engine.release.clear()
    busy = running.stub.Decode(request())
    await until(lambda: running.engine.batches)
    gone = running.stub.Decode(request())
    await until(lambda: running.batcher.admission.queued == 1)
    with pytest.raises(grpc.aio.AioRpcError):
        await running.stub.Decode(request())
    gone.cancel()
    await until(lambda: running.batcher.admission.queued == 0)
    running.engine.release.set()
    await busy
    await until(lambda: running.app._interceptor.working == 0)  # a refusal is counted after it was sent
    families = await asyncio.to_thread(scrape, running.app.metrics_port or 0)
    codes = {s.labels["code"]: s.value for s in families["hart_requests"].samples if s.name.endswith("_total")}
    assert {code: count for code, count in codes.items() if count} == {"OK": 1, "CANCELLED": 1, "RESOURCE_EXHAUSTED": 1}
    assert [s.value for s in families["hart_cancelled"].samples if s.name.endswith("_total")] == [1]
    assert {s.labels["reason"]: s.value for s in families["hart_shed"].samples if s.name.endswith("_total")} == {
        "queue_full": 1, "deadline": 0, "not_serving": 0,
    }  # fmt: skip
    assert [s.value for s in families["hart_inflight"].samples] == [0]
    assert [s.value for s in families["hart_queue_limit"].samples] == [1]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self) -> None:
        self.names: list[str] = []

    def Export(self, request: Any, context: Any) -> Any:
        self.names += [s.name for r in request.resource_spans for sc in r.scope_spans for s in sc.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def test_shutdown_flushes_spans_over_real_otlp() -> None:
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    telemetry = Telemetry("decoder", otlp_endpoint=f"http://127.0.0.1:{port}")
    with telemetry.tracing.span("work"):
        pass
    telemetry.shutdown()
    server.stop(0)
    assert collector.names == ["work"]


def test_log_line_is_json_with_the_trace_id() -> None:
    stream = io.StringIO()
    formatter = logs.JsonFormatter("decoder")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger("tests.line")
    logger.addHandler(handler)
    telemetry = Telemetry("decoder", span_exporter=InMemorySpanExporter())
    with telemetry.tracing.span("work") as span:
        logger.warning("hello %s", "wörld", extra={"seconds": 1.5})
        trace_id = f"{span.get_span_context().trace_id:032x}"
    line = json.loads(stream.getvalue())
    assert (line["message"], line["trace_id"], line["seconds"]) == ("hello wörld", trace_id, 1.5)
    assert line["stage"] == "decoder"


def test_inject_and_extract_are_inverse() -> None:
    telemetry = Telemetry("gateway", span_exporter=InMemorySpanExporter())
    with telemetry.tracing.span("work") as span:
        context = tracing.extract(tracing.inject())
        assert trace.get_current_span(context).get_span_context().trace_id == span.get_span_context().trace_id
