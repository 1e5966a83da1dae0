"""runtime.observability.tracing: one request through real processes is one trace, as a collector receives it."""

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import hart
import pytest
from hart import errors
from hart.v1 import images_pb2, images_pb2_grpc

from benchmarks.drills import chaos, metrics
from benchmarks.harness.processes import STAGES, Cluster, Process
from tests.e2e.collector import CLIENT, INTERNAL, SERVER, Collector, Span

SCALES = 4
PARTS = {"safety": 3, "text_encoder": 3, "ar_generator": 2 + SCALES, "decoder": 3}
"""Children of each stage's server span: queue, batch and compute; in the generator a batch per scale."""
SPANS = 1 + 2 * len(PARTS) + sum(PARTS.values())
METHODS = {
    "safety": "hart.v1.Safety/Check",
    "text_encoder": "hart.v1.TextEncoder/Encode",
    "ar_generator": "hart.v1.ArGenerator/Generate",
    "decoder": "hart.v1.Decoder/Decode",
}
SLACK = 60_000_000_000  # nanoseconds: a process may be paused meanwhile
pytestmark = pytest.mark.usefixtures("survives")
counter = iter(range(1_000_000))


def fresh() -> str:
    """A prompt that no cache holds."""
    return f"a red heart {next(counter)} of {time.time_ns()}"


def root_of(spans: list[Span]) -> Span:
    (root,) = [span for span in spans if not span.parent]
    return root


def stage_spans(spans: list[Span], stage: str, methods: dict[str, str]) -> tuple[Span, Span, list[Span]]:
    """The gateway's client span of a stage, the stage's server span, and that one's children."""
    (client,) = [s for s in spans if s.kind == CLIENT and s.name == methods[stage]
                 and s.attributes["hart.peer.stage"] == stage]  # fmt: skip
    (server,) = [s for s in spans if s.kind == SERVER and s.service == f"hart-{stage}"]
    return client, server, [s for s in spans if s.parent == server.span_id]


def calls_of(collector: Collector, stage: str) -> list[Span]:
    """The gateways' client spans of a stage received so far."""
    return [span for span in list(collector.spans) if span.kind == CLIENT and span.name == METHODS[stage]]


def assert_parents(spans: list[Span], methods: dict[str, str]) -> None:
    root = root_of(spans)
    assert (root.service, root.kind) == ("hart-gateway", SERVER)
    assert root.name in ("hart.v1.Images/Generate", "hart.v1.Images/GenerateStream")
    for stage in STAGES:
        client, server, children = stage_spans(spans, stage, methods)
        assert (client.service, client.parent) == ("hart-gateway", root.span_id)
        assert (server.name, server.parent) == (client.name, client.span_id)
        assert client.begun <= server.begun
        # The gateway does not wait for the end of the generator's call once the result is complete.
        assert server.ended <= (client.ended if stage != "ar_generator" else root.ended + SLACK)
        kinds = Counter(child.name for child in children)
        assert kinds == {"queue": 1, "compute": 1, "batch": SCALES if stage == "ar_generator" else 1}
        assert all(child.kind == INTERNAL and child.service == f"hart-{stage}" for child in children)
        for child in children:
            assert server.begun <= child.begun <= child.ended <= server.ended, (stage, child.name)
    assert len(spans) == SPANS


def assert_attributes(spans: list[Span], methods: dict[str, str]) -> None:
    for stage in STAGES:
        client, server, children = stage_spans(spans, stage, methods)
        service, _, method = methods[stage].partition("/")
        for span in (client, server):
            assert span.attributes["rpc.system.name"] == "grpc"
            assert span.attributes["rpc.method"] == f"{service}/{method}"
            assert span.attributes["rpc.response.status_code"] == "OK"
            assert not span.failed
        assert client.attributes["hart.transfer.bytes"] > 0
        assert client.attributes["server.address"] == "127.0.0.1"
        assert client.attributes["server.port"] > 0
        assert {s.attributes["hart.stage"] for s in [server, *children]} == {stage}
        batches = [s for s in children if s.name == "batch"]
        assert all(s.attributes["hart.batch.size"] >= 1 for s in batches)
        assert all("hart.queue.seconds" in s.attributes for s in children if s.name == "queue")
        for batch in batches:
            assert (server.trace_id, server.span_id) in batch.links
        if stage == "ar_generator":
            assert [s.attributes["hart.scale"] for s in sorted(batches, key=lambda s: s.begun)] == list(range(SCALES))


def test_one_request_is_one_trace_with_parents_and_attributes(client: hart.Client, collector: Collector) -> None:
    answer = client.generate(fresh(), seed=7)
    spans = collector.await_trace(answer.report.trace_id, SPANS)
    assert_parents(spans, METHODS)
    assert_attributes(spans, METHODS)
    attributes = root_of(spans).attributes
    assert attributes["gen_ai.operation.name"] == "generate_content"
    assert attributes["gen_ai.output.type"] == "image"
    assert attributes["gen_ai.request.model"] == "tiny"
    assert (attributes["gen_ai.request.seed"], attributes["gen_ai.request.choice.count"]) == (7, 1)
    assert attributes["hart.stage"] == "gateway"


def test_trace_context_is_propagated_over_oip(oip_gateway: Process, collector: Collector) -> None:
    service = "inference.GRPCInferenceService"
    methods = {stage: f"{service}/ModelStreamInfer" if stage == "ar_generator" else f"{service}/ModelInfer"
               for stage in STAGES}  # fmt: skip
    with hart.Client(oip_gateway.address) as caller:
        answer = caller.generate(fresh(), seed=7)
    spans = collector.await_trace(answer.report.trace_id, SPANS)
    assert_parents(spans, methods)
    assert_attributes(spans, methods)


def test_trace_of_the_caller_is_continued(cluster: Cluster, collector: Collector) -> None:
    own = ("ab" * 16, "cd" * 8)
    with grpc.insecure_channel(cluster.endpoint) as channel:
        answer = images_pb2_grpc.ImagesStub(channel).Generate(
            images_pb2.GenerateRequest(prompt=fresh()), metadata=(("traceparent", f"00-{own[0]}-{own[1]}-01"),)
        )
    assert answer.report.trace_id == own[0]
    spans = collector.await_trace(own[0], SPANS)
    (root,) = [span for span in spans if span.parent == own[1]]
    assert (root.service, root.name) == ("hart-gateway", "hart.v1.Images/Generate")


def test_batch_span_links_every_request_in_it(cluster: Cluster, collector: Collector) -> None:
    """Concurrent requests to one generator, so that they share batches."""
    alone = {"ar_generator": cluster.stages["ar_generator"][0].address}
    shared: set[str] = set()
    with cluster.another_gateway(**{**cluster.where(), **alone}) as gateway, hart.Client(gateway.address) as caller:
        for _ in range(10):  # whether they share a batch is left to chance
            with ThreadPoolExecutor(6) as many:
                answers = list(many.map(lambda seed: caller.generate(fresh(), seed=seed), range(6)))
            ids = {answer.report.trace_id for answer in answers}
            assert len(ids) == len(answers)
            shared |= assert_batches([span for one in ids for span in collector.await_trace(one, SPANS)])
            if "hart-ar_generator" in shared:
                return
    pytest.fail(f"no batch was shared in the generator, only in {shared}")


def assert_batches(spans: list[Span]) -> set[str]:
    """The services in which some of the requests shared a batch."""
    servers = {(s.trace_id, s.span_id): s for s in spans if s.kind == SERVER}
    shared: set[str] = set()
    for batch in [s for s in spans if s.name == "batch"]:
        assert len(batch.links) == batch.attributes["hart.batch.size"]
        assert (batch.trace_id, batch.parent) in batch.links
        assert {servers[link].service for link in batch.links} == {batch.service}
        mates = [s for s in spans if s.name == "batch" and s.service == batch.service and s.begun == batch.begun]
        assert {(s.trace_id, s.parent) for s in mates} == set(batch.links), (
            "each request has the batch in its own trace"
        )
        if len({trace_id for trace_id, _ in batch.links}) > 1:
            shared.add(batch.service)
    return shared


def test_prompts_are_recorded_only_if_so_configured(
    cluster: Cluster, client: hart.Client, collector: Collector
) -> None:
    prompt = fresh()
    unrecorded = collector.await_trace(client.generate(prompt, seed=1).report.trace_id, SPANS)
    assert prompt not in str(unrecorded)
    with cluster.another_gateway(record_prompts="true") as gateway, hart.Client(gateway.address) as caller:
        spans = collector.await_trace(caller.generate(prompt, seed=1).report.trace_id, SPANS - PARTS["text_encoder"])
    assert prompt in root_of(spans).attributes["gen_ai.input.messages"]


def test_ratio_0_keeps_only_failed_requests(cluster: Cluster, collector: Collector) -> None:
    with (
        cluster.another_gateway(trace_ratio="0", deadline_margin_seconds="0.3") as gateway,
        hart.Client(gateway.address) as caller,
    ):
        good = caller.generate(fresh(), seed=1).report.trace_id
        for _ in range(4):
            begun = time.time_ns()
            with chaos.hung(*cluster.stages["ar_generator"]), pytest.raises(errors.DeadlineExceeded) as failed:
                caller.generate(fresh(), seed=1, timeout=2.0)
            if failed.value.stage == "ar_generator":
                break  # otherwise a busy machine used up the time before the generator had the request
        assert failed.value.stage == "ar_generator"
        end = time.monotonic() + 60
        while not (late := [s for s in calls_of(collector, "ar_generator") if s.failed and s.begun > begun]):
            assert time.monotonic() < end
            time.sleep(0.1)
        spans = collector.await_trace(late[-1].trace_id, 4)
    root = root_of(spans)
    assert root.failed
    assert root.attributes["rpc.response.status_code"] == "DEADLINE_EXCEEDED"
    ours = {s.name: s for s in spans if s.service == "hart-gateway" and s.kind == CLIENT}
    assert {name for name, s in ours.items() if s.failed} == {METHODS["ar_generator"]}
    assert ours[METHODS["safety"]].attributes["rpc.response.status_code"] == "OK"
    assert not collector.trace(good)


def test_status_and_describe_are_neither_traced_nor_counted(
    cluster: Cluster, client: hart.Client, collector: Collector
) -> None:
    def counted() -> float:
        samples = asyncio.run(metrics.scrape(cluster.gateway))
        return samples.total("hart_requests_total") + samples.total("hart_request_duration_seconds_count")

    before, last = counted(), -1.0
    while before != last:  # calls of earlier tests are counted after their responses
        time.sleep(0.5)
        before, last = counted(), before
    for _ in range(3):
        client.status()
        client.describe()
    assert counted() == before
    time.sleep(0.5)
    assert {s.name for s in collector.spans if s.kind == SERVER} <= {
        "hart.v1.Images/Generate", "hart.v1.Images/GenerateStream", *METHODS.values(),
        "inference.GRPCInferenceService/ModelInfer", "inference.GRPCInferenceService/ModelStreamInfer",
    }  # fmt: skip
