"""The stage calls over hart.v1, the cluster's own contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc
from hart.v1 import (
    ar_generator_pb2,
    ar_generator_pb2_grpc,
    decoder_pb2,
    decoder_pb2_grpc,
    safety_pb2,
    safety_pb2_grpc,
    text_encoder_pb2,
    text_encoder_pb2_grpc,
)

from gateway.stages.rpc import A, M
from runtime import status
from runtime.calls.replica import Replica
from runtime.channel import drain_call
from runtime.deadline import Deadline
from runtime.observability.tracing import Metadata


async def check(
    replica: Replica, message: safety_pb2.CheckRequest, deadline: Deadline, metadata: Metadata
) -> safety_pb2.CheckResponse:
    """Safety.Check."""
    stub = safety_pb2_grpc.SafetyStub(replica.channel)
    return await _ask(stub.Check, message, deadline, metadata, "safety")


async def encode(
    replica: Replica, message: text_encoder_pb2.EncodeRequest, deadline: Deadline, metadata: Metadata
) -> text_encoder_pb2.EncodeResponse:
    """TextEncoder.Encode."""
    stub = text_encoder_pb2_grpc.TextEncoderStub(replica.channel)
    return await _ask(stub.Encode, message, deadline, metadata, "text_encoder")


async def decode(
    replica: Replica, message: decoder_pb2.DecodeRequest, deadline: Deadline, metadata: Metadata
) -> decoder_pb2.DecodeResponse:
    """Decoder.Decode."""
    stub = decoder_pb2_grpc.DecoderStub(replica.channel)
    return await _ask(stub.Decode, message, deadline, metadata, "decoder")


async def generate(
    replica: Replica, message: ar_generator_pb2.GenerateLatentRequest, deadline: Deadline, metadata: Metadata
) -> AsyncGenerator[ar_generator_pb2.GenerateLatentEvent, None]:
    """ArGenerator.Generate. Closing the generator cancels the call."""
    stub = ar_generator_pb2_grpc.ArGeneratorStub(replica.channel)
    call = stub.Generate(message, timeout=deadline.timeout(), metadata=metadata)
    complete = False
    try:
        while isinstance(event := await call.read(), ar_generator_pb2.GenerateLatentEvent):
            complete = event.HasField("result")
            yield event
    except grpc.RpcError as error:
        raise status.from_rpc_error(error, "ar_generator") from error
    finally:
        drain_call(call) if complete else call.cancel()


async def _ask(
    method: grpc.aio.UnaryUnaryMultiCallable[M, A], message: M, deadline: Deadline, metadata: Metadata, stage: str
) -> A:
    try:
        return await method(message, timeout=deadline.timeout(), metadata=metadata)
    except grpc.RpcError as error:
        raise status.from_rpc_error(error, stage) from error
