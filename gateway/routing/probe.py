"""Describes one replica, over either protocol."""

from __future__ import annotations

import grpc
from hart.v1 import stage_pb2, stage_pb2_grpc

from runtime.calls.replica import Replica
from runtime.oip.client import OipClient


async def describe(replica: Replica, stage: str, seconds: float) -> stage_pb2.StageDescribeResponse:
    """Calls Stage.Describe. For a server with the Open Inference Protocol alone, its metadata.

    Raises grpc.RpcError.
    """
    stub = stage_pb2_grpc.StageStub(replica.channel)
    try:
        return await stub.Describe(stage_pb2.StageDescribeRequest(), timeout=seconds)
    except grpc.RpcError as error:
        if replica.endpoint.protocol != "oip" or error.code() is not grpc.StatusCode.UNIMPLEMENTED:
            raise
        return await _foreign(replica, stage, seconds)


async def _foreign(replica: Replica, stage: str, seconds: float) -> stage_pb2.StageDescribeResponse:
    metadata = await OipClient(replica.channel, replica.endpoint.model, stage).metadata(seconds)
    sizes = {tensor.name: list(tensor.shape) for tensor in metadata.outputs}
    shape = stage_pb2.ModelShape()
    if len(sizes.get("context", [])) == 3:
        shape.context_tokens, shape.context_width = (max(0, size) for size in sizes["context"][1:])
    return stage_pb2.StageDescribeResponse(
        stage=stage,
        ready=True,  # otherwise its metadata call would fail
        model=stage_pb2.ModelIdentity(name=metadata.name),
        shape=shape,
        version=f"{metadata.platform} {', '.join(metadata.versions)}".strip(),
    )
