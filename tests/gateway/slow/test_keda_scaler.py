"""gateway.api.keda_scaler: the external scaler, called by a gRPC client of KEDA's published contract."""

import grpc
import pytest
from hart.v1 import images_pb2

from tests.gateway.keda_client import scaled_object, scaling_gateway


async def test_request_activates_a_stage_without_replicas() -> None:
    async with scaling_gateway() as (running, scaler):
        await running.end(running.stage("ar_generator"))
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Generate(images_pb2.GenerateRequest(prompt="a"))
        assert (await scaler.IsActive(scaled_object(stage="ar_generator"))).result
