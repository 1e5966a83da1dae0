"""gateway.request.pipeline: no generation without a verdict that allows it. Fake stages on real sockets."""

import grpc

from tests.gateway.calls import refused, request
from tests.gateway.support import running_gateway


async def test_without_safety_every_request_fails() -> None:
    async with running_gateway() as running:
        await running.end(running.stage("safety"))
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.UNAVAILABLE, "safety")
        assert not running.stage("ar_generator").received
