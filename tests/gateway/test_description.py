"""gateway.routing.description, gateway.routing.status: Describe, Status and traces of fake stages on real sockets."""

from typing import Any

from hart.v1 import images_pb2

from tests.gateway.calls import request
from tests.gateway.support import SCALES, running_gateway


async def test_describe_and_status_come_from_the_stages() -> None:
    async with running_gateway(replicas={"ar_generator": 2}) as running:
        described = await running.stub.Describe(images_pb2.DescribeRequest())
        model = described.models[0]
        assert (model.model.name, list(model.shape.scales), model.shape.width) == ("tiny", list(SCALES), 64)
        assert (model.shape.context_tokens, list(model.example_prompts)) == (3, ["a red heart"])
        assert (described.policy_version, list(described.policies)) == ("p1", ["harm"])
        assert described.limits.max_response_bytes > 8 * 64 * 64 * 3
        assert model.sampling_defaults.guidance == 4.5
        status = await running.stub.Status(images_pb2.StatusRequest())
        assert [stage.stage for stage in status.stages] == ["safety", "text_encoder", "ar_generator", "decoder"]
        assert [(stage.replicas, stage.ready) for stage in status.stages] == [(1, 1), (1, 1), (2, 2), (1, 1)]


async def test_one_trace_holds_the_request_and_its_calls() -> None:
    async with running_gateway() as running:
        report = (await running.stub.Generate(request())).report
        spans: dict[str, Any] = {span.name: span for span in running.spans.get_finished_spans()}
        root = spans["hart.v1.Images/Generate"]
        assert f"{root.context.trace_id:032x}" == report.trace_id
        for name in ("Safety/Check", "TextEncoder/Encode", "ArGenerator/Generate", "Decoder/Decode"):
            assert spans[f"hart.v1.{name}"].parent.span_id == root.context.span_id
        assert root.attributes["gen_ai.request.model"] == "tiny"
        assert root.attributes["gen_ai.output.type"] == "image"
        assert not any("red heart" in str(span.attributes) for span in spans.values())
