"""A client of KEDA's published contract."""

from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc
from tests.gateway.support import RunningGateway


def stub(running: RunningGateway) -> "externalscaler_pb2_grpc.ExternalScalerAsyncStub":
    return externalscaler_pb2_grpc.ExternalScalerStub(running.channel)


def scaled_object(**metadata: str) -> externalscaler_pb2.ScaledObjectRef:
    return externalscaler_pb2.ScaledObjectRef(name="x", namespace="y", scalerMetadata=metadata)
