"""The four calls to stages, each described once: its stage, its method by protocol, its backend function."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from hart.v1 import decoder_pb2, safety_pb2, text_encoder_pb2

from gateway.stages.backend import StageBackend
from runtime.calls.replica import Replica
from runtime.deadline import Deadline
from runtime.observability.tracing import Metadata

M = TypeVar("M", safety_pb2.CheckRequest, text_encoder_pb2.EncodeRequest, decoder_pb2.DecodeRequest)
A = TypeVar("A", safety_pb2.CheckResponse, text_encoder_pb2.EncodeResponse, decoder_pb2.DecodeResponse)
Invoke = Callable[[Replica, M, Deadline, Metadata], Awaitable[A]]


@dataclass(frozen=True)
class Rpc:
    """One call and its names in traces."""

    stage: str
    grpc_method: str
    oip_method: str = "inference.GRPCInferenceService/ModelInfer"

    def method(self, protocol: str) -> str:
        """The full name of the method in a protocol, "grpc" or "oip"."""
        return self.grpc_method if protocol == "grpc" else self.oip_method


@dataclass(frozen=True, kw_only=True)
class UnaryRpc(Rpc, Generic[M, A]):
    """A call with one response."""

    invoke: Callable[[StageBackend], Invoke[M, A]]
    """The backend's function for it."""


CHECK: UnaryRpc[safety_pb2.CheckRequest, safety_pb2.CheckResponse] = UnaryRpc(
    "safety", "hart.v1.Safety/Check", invoke=lambda backend: backend.check
)
ENCODE: UnaryRpc[text_encoder_pb2.EncodeRequest, text_encoder_pb2.EncodeResponse] = UnaryRpc(
    "text_encoder", "hart.v1.TextEncoder/Encode", invoke=lambda backend: backend.encode
)
DECODE: UnaryRpc[decoder_pb2.DecodeRequest, decoder_pb2.DecodeResponse] = UnaryRpc(
    "decoder", "hart.v1.Decoder/Decode", invoke=lambda backend: backend.decode
)
GENERATE = Rpc("ar_generator", "hart.v1.ArGenerator/Generate", "inference.GRPCInferenceService/ModelStreamInfer")
