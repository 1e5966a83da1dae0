"""gateway.request.admission, gateway.request.executor: full stages delay or refuse requests. Real sockets."""

import asyncio
from collections.abc import Callable

import grpc

from tests.gateway.calls import holding, refused, request
from tests.gateway.support import FakeStage, running_gateway, until


def queue_limit(queue: int) -> Callable[[dict[str, list[FakeStage]]], None]:
    """Set the generator's queue limit."""

    def prepare(stages: dict[str, list[FakeStage]]) -> None:
        stages["ar_generator"][0].queue_limit = queue

    return prepare


async def test_one_connection_leaves_slots_for_others() -> None:
    async with running_gateway(prepare=queue_limit(1000)) as running:
        release = asyncio.Event()
        running.stage("safety").before = holding(release)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(400)]
        await until(lambda: sum(call.done() for call in calls) == 400 - 192)
        for call in calls:
            if call.done():
                code, info, _ = await refused(call)
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert info.metadata["setting"] == "HART_CONNECTION_REQUESTS"
        release.set()
        await asyncio.gather(*calls, return_exceptions=True)
