"""gateway.stages.client: failing stages, retries and the resulting status. Fake stages on real sockets."""

import time

import grpc
from hart.v1 import images_pb2

from tests.gateway.calls import refused, request
from tests.gateway.support import running_gateway


async def test_only_the_first_call_waits_for_a_stage_that_stopped() -> None:
    async with running_gateway() as running:

        async def seconds_to_failure() -> float:
            began = time.monotonic()
            assert (await refused(running.stub.Generate(request())))[0] is grpc.StatusCode.UNAVAILABLE
            return time.monotonic() - began

        await running.end(running.stage("safety"))
        first = await seconds_to_failure()
        later = [await seconds_to_failure() for _ in range(5)]
        assert min(later) < first / 2  # the minimum: a busy machine may delay single calls


async def test_gateway_serves_while_a_stage_is_missing() -> None:
    async with running_gateway() as running:
        await running.end(running.stage("decoder"))
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.UNAVAILABLE, "decoder")
        status = await running.stub.Status(images_pb2.StatusRequest())
        assert [stage.ready for stage in status.stages] == [1, 1, 1, 0]
        assert running.app.ready
