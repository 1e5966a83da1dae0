"""gateway.routing.compatibility: parts of different checkpoints never share an image. Fake stages, real sockets."""

import grpc

from common.digests import combine
from tests.gateway.support import running_gateway
from tests.gateway.two_versions import TWO_CHECKPOINTS, TWO_REPLICAS, request


async def test_lost_decoder_is_not_replaced_by_another_checkpoints() -> None:
    async with running_gateway(TWO_REPLICAS, TWO_CHECKPOINTS) as running:
        await running.end(running.stages["decoder"][0])
        digests, codes = set(), set()
        for seed in range(12):
            try:
                digests.add((await running.stub.Generate(request(seed))).report.model.digest)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())
        assert codes <= {grpc.StatusCode.UNAVAILABLE}
        assert digests == {combine(generator="G2", text_encoder="T2", decoder="D2")}
        assert {r.recipe.model.digest for r in running.stages["decoder"][1].received} == digests
