"""runtime.server in every process: malformed and extreme messages get the right status and harm no process."""

import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from hart.v1 import (
    ar_generator_pb2,
    decoder_pb2,
    images_pb2,
    safety_pb2,
    stage_pb2,
    tensor_pb2,
    text_encoder_pb2,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from benchmarks.harness.processes import SERVICES, STAGES, Cluster
from tests.e2e.messages import messages

T, D, Z, N = 8, 24, 8, 4
pytestmark = pytest.mark.usefixtures("survives")
INVALID = grpc.StatusCode.INVALID_ARGUMENT
METHODS: dict[str, tuple[str, Any, bool]] = {
    "hart.v1.Images/Generate": ("gateway", images_pb2.GenerateRequest, False),
    "hart.v1.Images/GenerateStream": ("gateway", images_pb2.GenerateRequest, True),
    "hart.v1.Images/Describe": ("gateway", images_pb2.DescribeRequest, False),
    "hart.v1.Images/Status": ("gateway", images_pb2.StatusRequest, False),
    "hart.v1.Safety/Check": ("safety", safety_pb2.CheckRequest, False),
    "hart.v1.TextEncoder/Encode": ("text_encoder", text_encoder_pb2.EncodeRequest, False),
    "hart.v1.ArGenerator/Generate": ("ar_generator", ar_generator_pb2.GenerateLatentRequest, True),
    "hart.v1.Decoder/Decode": ("decoder", decoder_pb2.DecodeRequest, False),
    "hart.v1.Stage/Describe": ("decoder", stage_pb2.StageDescribeRequest, False),
}
INFER = "inference.GRPCInferenceService/ModelInfer"


class Wire:
    """Sends raw bytes to any method of any process."""

    def __init__(self, cluster: Cluster) -> None:
        first = {stage: replicas[0] for stage, replicas in cluster.stages.items()} | {"gateway": cluster.gateway}
        options = [("grpc.max_send_message_length", -1)]
        self.channels = {name: grpc.insecure_channel(p.address, options) for name, p in first.items()}

    def send(self, method: str, data: bytes, stage: str = "") -> grpc.RpcError | None:
        """The call's error, None for a response."""
        name, _, streams = METHODS.get(method, (stage, None, False))
        channel = self.channels[stage or name]
        kind: Any = channel.unary_stream if streams else channel.unary_unary
        try:
            answer = kind(f"/{method}", None, None)(data, timeout=30)
            if streams:
                list(answer)
        except grpc.RpcError as error:
            return error
        return None

    def code(self, method: str, data: bytes, stage: str = "") -> grpc.StatusCode:
        error: Any = self.send(method, data, stage)
        return error.code() if error is not None else grpc.StatusCode.OK


@pytest.fixture(scope="module")
def wire(cluster: Cluster) -> Iterator[Wire]:
    found = Wire(cluster)
    yield found
    for channel in found.channels.values():
        channel.close()


def fields_of(error: Any) -> set[str]:
    for detail in rpc_status.from_call(error).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            return {violation.field for violation in bad.field_violations}
    return set()


def image_request(**fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(**{"prompt": "a red heart", "seed": 1, **fields})


# -- the gateway's fields --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x"}, {"prompt": "é" * 2000}, {"num_images": 1}, {"num_images": 8}, {"seed": 0}, {"seed": 2**64 - 1},
        {"guidance": 0}, {"guidance": 20}, {"top_p": 1}, {"format": 2, "quality": 1}, {"format": 3, "quality": 100},
        {"request_id": "x" * 128}, {"model": "tiny"}, {"more_smooth": False}, {"embed_metadata": False},
    ],
    ids=lambda fields: str(fields)[:30],
)  # fmt: skip
def test_field_at_its_bound_is_accepted(wire: Wire, fields: dict[str, Any]) -> None:
    for method in ("Generate", "GenerateStream"):
        message = image_request(**{**fields, **({"request_id": method + "x" * 100} if "request_id" in fields else {})})
        assert wire.send(f"hart.v1.Images/{method}", message.SerializeToString()) is None


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"), ({"prompt": "x" * 2001}, "prompt"), ({"num_images": 0}, "num_images"),
        ({"num_images": 9}, "num_images"), ({"guidance": -0.1}, "guidance"), ({"guidance": 20.1}, "guidance"),
        ({"guidance": math.nan}, "guidance"), ({"top_p": 1.1}, "top_p"), ({"top_p": math.nan}, "top_p"),
        ({"format": 77}, "format"), ({"format": 2, "quality": 0}, "quality"), ({"quality": 9}, "quality"),
        ({"preview_every": 5}, "preview_every"), ({"request_id": "a b"}, "request_id"), ({"model": "x"}, "model"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_field_past_its_bound_is_refused_by_name(wire: Wire, fields: dict[str, Any], field: str) -> None:
    for method in ("Generate", "GenerateStream"):
        error: Any = wire.send(f"hart.v1.Images/{method}", image_request(**fields).SerializeToString())
        assert error.code() is INVALID
        assert fields_of(error) == {field}


# -- tensors ---------------------------------------------------------------------------------------------------------


def decode(**tensor: Any) -> bytes:
    base = {"dtype": tensor_pb2.DATA_TYPE_FP32, "shape": [Z, N, N], "data": bytes(4 * Z * N * N)}
    return decoder_pb2.DecodeRequest(latent=tensor_pb2.Tensor(**{**base, **tensor})).SerializeToString()


@pytest.mark.parametrize(
    ("tensor", "field"),
    [
        ({"data": bytes(4 * Z * N * N - 1)}, "latent.data"),
        ({"data": bytes(4 * Z * N * N + 1)}, "latent.data"),
        ({"data": b""}, "latent.data"),
        ({"shape": [2**31, 2**31, 2**31]}, "latent.shape"),
        ({"shape": [2**31]}, "latent.shape"),
        ({"shape": [-1, N, N]}, "latent.shape"),
        ({"shape": [0, N, N], "data": b""}, "latent.shape"),
        ({"shape": []}, "latent.shape"),
        ({"shape": [1] * 1000}, "latent.shape"),
        ({"dtype": tensor_pb2.DATA_TYPE_INT64, "data": bytes(8 * Z * N * N)}, "latent.dtype"),
        ({"dtype": 0}, "latent.dtype"),
        ({"dtype": 99}, "latent.dtype"),
        ({"data": struct.pack("<f", math.nan) * (Z * N * N)}, "latent.data"),
        ({"data": struct.pack("<f", math.inf) * (Z * N * N)}, "latent.data"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_invalid_tensor_is_refused_by_name(wire: Wire, tensor: dict[str, Any], field: str) -> None:
    error: Any = wire.send("hart.v1.Decoder/Decode", decode(**tensor))
    assert error.code() is INVALID
    assert fields_of(error) == {field}


def test_valid_tensor_is_decoded(wire: Wire) -> None:
    assert wire.send("hart.v1.Decoder/Decode", decode()) is None


# -- bytes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [m for m, (_, kind, _) in METHODS.items()])
@pytest.mark.parametrize(
    "data",
    [b"\xff" * 20, b"\x0a\xff\xff\xff\xff\x0f", b"\x12\x02\xff\xfe", b"\x00", b"\x0b" * 500],
    ids=["noise", "length past the end", "invalid UTF-8", "field number 0", "deep groups"],
)
def test_bytes_that_do_not_parse_are_an_invalid_argument(wire: Wire, method: str, data: bytes) -> None:
    code = wire.code(method, data)
    empty = not METHODS[method][1].DESCRIPTOR.fields
    assert code is INVALID or (empty and code is grpc.StatusCode.OK)


@pytest.mark.parametrize("method", METHODS)
def test_unknown_field_is_refused_by_number(wire: Wire, method: str) -> None:
    error: Any = wire.send(method, b"\xf8\x3e\x01")  # field 1007, varint 1
    assert error.code() is INVALID
    assert fields_of(error) == {"1007"}


LARGE = bytes(100_000_000)


@pytest.mark.parametrize("name", SERVICES)
def test_message_of_100_mb_is_refused(wire: Wire, name: str) -> None:
    method = "hart.v1.Images/Generate" if name == "gateway" else INFER
    assert wire.code(method, LARGE, name) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("name", SERVICES)
def test_unknown_method_is_unimplemented(wire: Wire, name: str) -> None:
    assert wire.code("hart.v1.Images/Destroy", b"", name) is grpc.StatusCode.UNIMPLEMENTED


# -- anything --------------------------------------------------------------------------------------------------------

FEW = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ANSWERS = {grpc.StatusCode.OK, INVALID}


@lru_cache
def random_messages(method: str) -> st.SearchStrategy[Any]:
    return messages(METHODS[method][1].DESCRIPTOR)


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(data=st.data())
def test_any_message_is_answered_or_refused_as_invalid(wire: Wire, method: str, data: st.DataObject) -> None:
    message = data.draw(random_messages(method))
    assert wire.code(method, message.SerializeToString()) in ANSWERS


@pytest.mark.parametrize("stage", STAGES)
@FEW
@given(message=messages(service_pb2.ModelInferRequest.DESCRIPTOR, depth=3))
def test_any_inference_is_answered_or_refused_as_invalid(wire: Wire, stage: str, message: Any) -> None:
    message.model_name, message.model_version = stage, ""
    code = wire.code(INFER, message.SerializeToString(), stage)
    assert code in ANSWERS


@pytest.mark.parametrize("method", METHODS)
@FEW
@given(data=st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused_as_invalid(wire: Wire, method: str, data: bytes) -> None:
    assert wire.code(method, data) in ANSWERS


# -- the standard services -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_reflection_lists_and_describes_the_services(wire: Wire, name: str) -> None:
    database = ProtoReflectionDescriptorDatabase(wire.channels[name])
    services = set(database.get_services())
    wanted = {SERVICES[name], "grpc.health.v1.Health"}
    if name != "gateway":
        wanted |= {"hart.v1.Stage", "inference.GRPCInferenceService"}
    assert wanted <= services
    found = database.FindFileContainingSymbol(SERVICES[name])
    assert SERVICES[name] in [f"{found.package}.{service.name}" for service in found.service]


@pytest.mark.parametrize("name", SERVICES)
def test_health_distinguishes_liveness_and_readiness(wire: Wire, name: str) -> None:
    stub = health_pb2_grpc.HealthStub(wire.channels[name])
    serving = health_pb2.HealthCheckResponse.SERVING
    for service in ("", SERVICES[name]):
        assert stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=30).status == serving
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=30)
        assert next(iter(watch)).status == serving
        watch.cancel()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=30)
    error: Any = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
