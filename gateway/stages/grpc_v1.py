"""The stage calls over hart.v1, the cluster's own contract."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

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

from runtime import status
from runtime.calls.replica import Replica
from runtime.channel import drain_call
from runtime.deadline import Deadline
from runtime.observability.tracing import Metadata


async def check(
    replica: Replica, message: safety_pb2.CheckRequest, deadline: Deadline, metadata: Metadata
) -> safety_pb2.CheckResponse:
    """Safety.Check."""
    stub: Any = safety_pb2_grpc.SafetyStub(replica.channel)
    answer: safety_pb2.CheckResponse = await _ask(stub.Check, message, deadline, metadata, "safety")
    return answer


async def encode(
    replica: Replica, message: text_encoder_pb2.EncodeRequest, deadline: Deadline, metadata: Metadata
) -> text_encoder_pb2.EncodeResponse:
    """TextEncoder.Encode."""
    stub: Any = text_encoder_pb2_grpc.TextEncoderStub(replica.channel)
    answer: text_encoder_pb2.EncodeResponse = await _ask(stub.Encode, message, deadline, metadata, "text_encoder")
    return answer


async def decode(
    replica: Replica, message: decoder_pb2.DecodeRequest, deadline: Deadline, metadata: Metadata
) -> decoder_pb2.DecodeResponse:
    """Decoder.Decode."""
    stub: Any = decoder_pb2_grpc.DecoderStub(replica.channel)
    answer: decoder_pb2.DecodeResponse = await _ask(stub.Decode, message, deadline, metadata, "decoder")
    return answer


async def generate(
    replica: Replica, message: ar_generator_pb2.GenerateLatentRequest, deadline: Deadline, metadata: Metadata
) -> AsyncGenerator[ar_generator_pb2.GenerateLatentEvent, None]:
    """ArGenerator.Generate. Closing the generator cancels the call."""
    stub: Any = ar_generator_pb2_grpc.ArGeneratorStub(replica.channel)
    call = stub.Generate(message, timeout=deadline.timeout(), metadata=metadata)
    complete = False
    try:
        while (event := await call.read()) is not grpc.aio.EOF:
            complete = event.HasField("result")
            yield event
    except grpc.RpcError as error:
        raise status.from_rpc_error(error, "ar_generator") from error
    finally:
        drain_call(call) if complete else call.cancel()


async def _ask(method: Any, message: Any, deadline: Deadline, metadata: Metadata, stage: str) -> Any:
    try:
        return await method(message, timeout=deadline.timeout(), metadata=metadata)
    except grpc.RpcError as error:
        raise status.from_rpc_error(error, stage) from error
