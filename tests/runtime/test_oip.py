"""runtime.oip: the Open Inference Protocol's server and client, called by tritonclient over real sockets."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncGenerator, AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from runtime import errors
from runtime.deadline import Deadline
from runtime.observability.telemetry import Telemetry
from runtime.oip import codec
from runtime.oip.client import OipClient
from runtime.oip.model import InferRequest, InferResult, Model
from runtime.oip.servicer import MAX_PER_STREAM, OipServicer
from tests.runtime.support import Running, until


def latent(array: np.ndarray, datatype: str = "FP32", name: str = "latent", module: Any = triton) -> Any:
    given_input = module.InferInput(name, list(array.shape), datatype)
    given_input.set_data_from_numpy(array)
    return given_input


async def test_sync_client_reads_metadata_and_infers(served: Running) -> None:
    def drive() -> None:
        with triton.InferenceServerClient(f"127.0.0.1:{served.app.port}") as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("decoder")
            assert client.get_server_metadata().name == "hart-decoder"
            metadata = client.get_model_metadata("decoder")
            assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("latent", "FP32", [-1, 4])]
            answer = client.infer("decoder", [latent(np.ones((2, 4), np.float32))], request_id="r1", client_timeout=60)
            assert answer.as_numpy("sum").tolist() == [8.0]
            assert answer.get_response().id == "r1"

    await asyncio.to_thread(drive)


async def test_aio_client_infers(served: Running) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{served.app.port}") as client:
        assert await client.is_model_ready("count")
        outputs = [triton_aio.InferRequestedOutput("sum")]
        answer = await client.infer(
            "decoder", [latent(np.ones((1, 4), np.float32), module=triton_aio)], outputs=outputs
        )
        assert answer.as_numpy("sum").tolist() == [4.0]


async def test_sync_stream_gets_each_response_and_the_final_flag(served: Running) -> None:
    def drive() -> list[tuple[int, bytes, bool]]:
        answers: queue.Queue[Any] = queue.Queue()
        with triton.InferenceServerClient(f"127.0.0.1:{served.app.port}") as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            client.async_stream_infer("count", [latent(np.array([3], np.int32), "INT32", "n")])
            seen: list[tuple[int, bytes, bool]] = []
            while not (seen and seen[-1][2]):
                result, error = answers.get(timeout=60)
                assert error is None
                final = result.get_response().parameters["triton_final_response"].bool_param
                seen.append((int(result.as_numpy("i")[0]), result.as_numpy("text")[0], final))
            client.stop_stream()
        return seen

    assert await asyncio.to_thread(drive) == [(0, b"0", False), (1, b"1", False), (2, b"2", True)]


async def test_aio_stream_continues_after_an_error(served: Running) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{served.app.port}") as client:

        async def requests() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": "missing", "inputs": [latent(np.array([1], np.int32), "INT32", "n", triton_aio)]}
            yield {"model_name": "count", "inputs": [latent(np.array([1], np.int32), "INT32", "n", triton_aio)]}

        answers = [pair async for pair in client.stream_infer(requests())]
        failures = [error for _, error in answers if error]
        assert len(failures) == 1
        assert "unknown model 'missing'" in str(failures[0])
        assert [result.as_numpy("i")[0] for result, error in answers if not error] == [0]


WRONG = {
    "shape": (latent(np.ones((2, 5), np.float32)), r"inputs\[latent\].shape"),
    "rank": (latent(np.ones((4,), np.float32)), r"inputs\[latent\].shape"),
    "datatype": (latent(np.ones((1, 4), np.int32), "INT32"), r"inputs\[latent\].datatype"),
    "name": (latent(np.ones((1, 4), np.float32), name="x"), "unknown input 'x'"),
    "nan": (latent(np.full((1, 4), np.nan, np.float32)), "finite"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_input_that_does_not_fit_the_model_is_refused_by_name(served: Running, case: str) -> None:
    wrong, message = WRONG[case]
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{served.app.port}") as client:
        with pytest.raises(InferenceServerException, match=message) as caught:
            await client.infer("decoder", [wrong])
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


async def infer_raw(served: Running, **fields: Any) -> Any:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(served.channel)
    return await stub.ModelInfer(service_pb2.ModelInferRequest(model_name="decoder", **fields), timeout=60)


@pytest.mark.parametrize("shape", [[2**31, 4], [2**62, 4], [-1, 4], [1] * 40, [0, 4]], ids=str)
async def test_impossible_shape_is_refused_before_allocation(served: Running, shape: list[int]) -> None:
    tensor = {"name": "latent", "datatype": "FP32", "shape": shape}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer_raw(served, inputs=[tensor], raw_input_contents=[b"\0" * 16])
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "inputs[latent].shape" in (caught.value.details() or "")


async def test_typed_and_raw_contents_give_the_same_result(served: Running) -> None:
    values = [1.0, 2.0, 3.0, 4.0]
    tensor = {"name": "latent", "datatype": "FP32", "shape": [1, 4]}
    typed = await infer_raw(served, inputs=[{**tensor, "contents": {"fp32_contents": values}}])
    raw = await infer_raw(served, inputs=[tensor], raw_input_contents=[np.array(values, "<f4").tobytes()])
    assert typed.raw_output_contents == raw.raw_output_contents == [np.array([10], "<f4").tobytes()]


async def test_truncated_contents_and_unknown_parameters_are_refused(served: Running) -> None:
    tensor = {"name": "latent", "datatype": "FP32", "shape": [1, 4]}
    for fields, message in (
        ({"raw_input_contents": [b"\0" * 15]}, "takes 16 bytes, not 15"),
        ({"raw_input_contents": [b"\0" * 16] * 2}, "2 entries for 1 inputs"),
        ({"raw_input_contents": [b"\0" * 16], "parameters": {"hue": {"int64_param": 1}}}, "parameters[hue]"),
        ({"raw_input_contents": [b"\0" * 16], "parameters": {"scale": {"bool_param": True}}}, "parameters[scale]"),
        ({"raw_input_contents": [b"\0" * 16], "outputs": [{"name": "hue"}]}, "unknown output"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await infer_raw(served, inputs=[tensor], **fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert message in (caught.value.details() or "")


@pytest.mark.parametrize("number", ["9" * 400, "-" + "9" * 400, str(2**63)])
async def test_number_given_as_text_is_bounded_to_64_bits(served: Running, number: str) -> None:
    fields = {"inputs": [{"name": "latent", "datatype": "FP32", "shape": [1, 4]}], "raw_input_contents": [b"\0" * 16]}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer_raw(served, **fields, parameters={"timeout": {"string_param": number}})
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "parameters[timeout]" in (caught.value.details() or "")
    assert (await infer_raw(served, **fields, parameters={"timeout": {"string_param": str(2**62)}})).outputs


async def test_zero_timeout_is_none_and_a_short_one_expires(served: Running) -> None:
    fields = {"inputs": [{"name": "latent", "datatype": "FP32", "shape": [1, 4]}], "raw_input_contents": [b"\0" * 16]}
    assert (await infer_raw(served, **fields, parameters={"timeout": {"int64_param": 0}})).outputs
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await infer_raw(served, **fields, parameters={"timeout": {"int64_param": 1}})
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_oip_client_streams_infers_and_raises_domain_errors(served: Running) -> None:
    count = OipClient(served.channel, "count", "ar_generator")
    deadline = Deadline.after(60)
    seen = [
        (int(result.outputs["i"][0]), result.outputs["text"][0], final)
        async for result, final in count.stream({"n": np.array([2], np.int32)}, deadline=deadline)
    ]
    assert seen == [(0, b"0", False), (1, b"1", True)]
    decoder = OipClient(served.channel, "decoder", "decoder")
    result = await decoder.infer({"latent": np.ones((1, 4), np.float32)}, deadline=deadline)
    assert result.outputs["sum"].tolist() == [4.0]
    with pytest.raises(errors.InvalidRequest, match=r"inputs\[latent\].shape"):
        await decoder.infer({"latent": np.ones((1, 3), np.float32)}, deadline=deadline)
    with pytest.raises(errors.InvalidRequest, match=r"inputs\[n\].shape"):
        async for _ in count.stream({"n": np.ones((2,), np.int32)}, deadline=deadline):
            pass
    assert await decoder.ready(60)


@pytest.mark.parametrize(
    ("code", "said", "kind"),
    [
        (grpc.StatusCode.INTERNAL, "Stub process 'safety_0_0' is not healthy.", errors.StageUnavailable),
        (grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'safety' is not found", errors.StageUnavailable),
        (grpc.StatusCode.UNAVAILABLE, "Request for unknown model: 'safety' has no available versions",
         errors.StageUnavailable),
        (grpc.StatusCode.INTERNAL, "internal error", errors.Internal),
    ],
)  # fmt: skip
@pytest.mark.parametrize("streams", [False, True])
async def test_triton_without_its_model_is_an_unavailable_stage(
    code: grpc.StatusCode, said: str, kind: type[errors.HartError], streams: bool
) -> None:
    class Broken(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
        async def ModelInfer(self, request: Any, context: Any) -> None:
            await context.abort(code, said)

        async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:
            async for _ in requests:
                yield service_pb2.ModelStreamInferResponse(error_message=said)

    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Broken(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        client, inputs = OipClient(channel, "safety", "safety"), {"prompt": np.array([b"a"], object)}
        with pytest.raises(kind):
            if streams:
                await anext(client.stream(inputs, deadline=Deadline.after(60)))
            else:
                await client.infer(inputs, deadline=Deadline.after(60))
    await server.stop(0)


async def test_each_request_of_a_stream_is_counted_and_timed(served: Running) -> None:
    async def requests() -> AsyncIterator[Any]:
        for name, datatype in (("count", "FP32"), ("missing", "INT32"), ("count", "INT32"), ("count", "INT32")):
            request = service_pb2.ModelInferRequest(model_name=name)
            request.inputs.add(name="n", datatype=datatype, shape=[1]).contents.int_contents.append(1)
            yield request

    stub = service_pb2_grpc.GRPCInferenceServiceStub(served.channel)
    assert len([answer async for answer in stub.ModelStreamInfer(requests(), timeout=60)]) == 4
    await until(lambda: served.app._interceptor.working == 0)
    value = served.app.telemetry.registry.get_sample_value
    for metric in ("hart_requests_total", "hart_request_duration_seconds_count"):
        counted = {c.name: value(metric, {"stage": "decoder", "code": c.name}) for c in grpc.StatusCode}
        assert {code: n for code, n in counted.items() if n} == {"OK": 2, "INVALID_ARGUMENT": 1, "NOT_FOUND": 1}


async def test_broken_stream_is_counted_once_and_not_as_ok(served: Running) -> None:
    method: Any = served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    call = method(iter([b"\xff"]), timeout=60)
    with pytest.raises(grpc.aio.AioRpcError):
        await call.read()
    await until(lambda: served.app._interceptor.working == 0)
    value = served.app.telemetry.registry.get_sample_value
    counted = {c.name: value("hart_requests_total", {"stage": "decoder", "code": c.name}) for c in grpc.StatusCode}
    assert {code: n for code, n in counted.items() if n} == {"INVALID_ARGUMENT": 1}


async def test_closed_stream_stops_its_model(served: Running) -> None:
    count = OipClient(served.channel, "count", "ar_generator")
    stream = count.stream({"n": np.array([10**6], np.int32)}, deadline=Deadline.none())
    async for _ in stream:
        break
    await stream.aclose()
    await until(lambda: served.app._interceptor.working == 0)


async def test_stream_closed_with_unread_responses_leaks_no_task() -> None:
    async def stream(asked: InferRequest) -> AsyncGenerator[InferResult, None]:
        for _ in range(2 * MAX_PER_STREAM):
            yield InferResult({})

    async def requests() -> AsyncIterator[Any]:
        yield service_pb2.ModelInferRequest(model_name="many")
        await asyncio.Event().wait()

    class Context:
        def time_remaining(self) -> None: ...

    before = asyncio.all_tasks()
    models = {"many": Model("many", (), (), stream=stream)}
    telemetry = Telemetry("many")
    host = SimpleNamespace(models=models, ready=True, draining=asyncio.Event(), stage="many", telemetry=telemetry)
    context: Any = Context()
    answers: Any = OipServicer(host).ModelStreamInfer(requests(), context)
    await anext(answers)
    queue = answers.ag_frame.f_locals["answers"]
    await until(queue.full)
    await answers.aclose()
    await until(lambda: asyncio.all_tasks() == before)


async def test_open_stream_does_not_delay_draining(served: Running) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(served.channel)
    call = stub.ModelStreamInfer()
    request = service_pb2.ModelInferRequest(model_name="count")
    request.inputs.add(name="n", datatype="INT32", shape=[1]).contents.int_contents.append(1)
    await call.write(request)
    await call.read()
    assert await served.app.drain(60)
    assert await call.read() is grpc.aio.EOF


@given(st.lists(st.binary(max_size=20), max_size=6), st.binary(max_size=4))
def test_bytes_tensors_round_trip_and_damaged_ones_are_refused(items: list[bytes], noise: bytes) -> None:
    array = codec.bytes_array(items)
    datatype, raw = codec.encode(array)
    back = codec.decode_raw(raw, datatype, array.shape, "x")
    assert back.tolist() == items
    if noise:
        with pytest.raises(errors.InvalidRequest):
            codec.decode_raw(raw + noise, datatype, array.shape, "x")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    datatype=st.sampled_from(["FP32", "BYTES", "INT8", "FP16", "X", ""]),
    shape=st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 3), max_size=10),
    raw=st.none() | st.binary(max_size=40),
)
async def test_arbitrary_tensors_are_answered_or_refused(
    served: Running, datatype: str, shape: list[int], raw: bytes | None
) -> None:
    tensor = {"name": "latent", "datatype": datatype, "shape": shape}
    try:
        await infer_raw(served, inputs=[tensor], **({} if raw is None else {"raw_input_contents": [raw]}))
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error.details()  # noqa: PT017
