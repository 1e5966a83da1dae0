"""gateway.routing.registry: each replica's latest description since it became ready. Fake stages, real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import pytest
from hart.v1 import stage_pb2

from common.stages import STAGES
from gateway.routing.registry import ReplicaRegistry
from runtime.calls.pool import Pool
from runtime.calls.replica import ReplicaState
from runtime.discovery.sources import source
from tests.gateway.support import Context, FakeStage, serve, until


@dataclass
class SlowStage(FakeStage):
    """Responds to Describe once `answer` is set, with the values of the time of the call."""

    answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def Describe(
        self, request: stage_pb2.StageDescribeRequest, context: Context
    ) -> stage_pb2.StageDescribeResponse:
        self.asked += 1
        description, answer = await super().Describe(request, context), self.answer
        await answer.wait()
        return description


@pytest.mark.parametrize("load", [float("nan"), float("inf")])
async def test_a_load_that_is_not_finite_is_none(load: float, cluster: "Cluster") -> None:
    cluster.decoder.load = load
    await cluster.registry.refresh()
    [said] = cluster.registry.all("decoder")
    assert said.load.load == 0
    assert said.stage == "decoder"


@dataclass
class Cluster:
    """One replica of each stage, their pools and the registry. `decoder` may be delayed."""

    decoder: SlowStage
    pools: dict[str, Pool]
    registry: ReplicaRegistry

    @property
    def digest(self) -> str:
        return self.registry.model_of(self.pools["decoder"].replicas[0]).digest


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        fakes = {stage: SlowStage(stage) for stage in STAGES}
        pools = {}
        for stage, fake in fakes.items():
            fake.answer.set()
            _, app = await serve(fake)
            stack.push_async_callback(app.stop)
            pools[stage] = Pool(stage, STAGES[stage].service, source(f"127.0.0.1:{fake.port}"))
            stack.push_async_callback(pools[stage].close)
            await pools[stage].start(60)
        yield Cluster(fakes["decoder"], pools, ReplicaRegistry(pools, every=60.0))


async def test_compatibility_is_cached_until_a_replica_changes(cluster: Cluster) -> None:
    compatible = await cluster.registry.compatible()
    assert compatible.decoders("digest of decoder")
    assert await cluster.registry.compatible() is compatible
    assert cluster.decoder.asked == 1
    cluster.decoder.digest = "D2"
    await cluster.registry.refresh()
    assert (await cluster.registry.compatible()).decoders("D2")


async def test_returning_replica_is_described_before_it_is_used(cluster: Cluster) -> None:
    await cluster.registry.compatible()
    replica = cluster.pools["decoder"].replicas[0]
    cluster.decoder.digest = "D2"  # another process at the same address
    replica.set_aside()
    assert not (await cluster.registry.compatible()).decoders("D1"), "no replica is ready"
    await until(lambda: replica.state is ReplicaState.READY)
    assert cluster.digest == ""
    assert (await cluster.registry.compatible()).decoders("D2")


async def test_undescribed_replica_gets_the_stage_model_without_a_digest(cluster: Cluster) -> None:
    await cluster.registry.refresh()
    replica = cluster.pools["decoder"].replicas[0]
    assert cluster.registry.about("decoder", replica).model.digest == "digest of decoder"
    replica.set_aside()
    await until(lambda: replica.state is ReplicaState.READY)
    about = cluster.registry.about("decoder", replica)
    assert (about.model.name, about.model.digest, about.shape.width) == ("tiny", "", 64)
    assert cluster.registry.last("decoder").model.digest == "digest of decoder"


async def test_late_description_does_not_replace_a_newer_one(cluster: Cluster) -> None:
    await cluster.registry.refresh()
    cluster.decoder.digest, cluster.decoder.answer = "D1", asyncio.Event()
    late, old = cluster.decoder.answer, asyncio.create_task(cluster.registry.refresh())
    await until(lambda: cluster.decoder.asked == 2)
    cluster.decoder.digest, cluster.decoder.answer = "D2", asyncio.Event()
    cluster.decoder.answer.set()
    cluster.pools["decoder"].replicas[0].set_aside()
    await until(lambda: cluster.pools["decoder"].ready)
    await cluster.registry.compatible()
    assert cluster.digest == "D2"
    late.set()
    await old
    assert cluster.digest == "D2"


async def test_concurrent_lookups_describe_a_new_replica_once(cluster: Cluster) -> None:
    found = await asyncio.gather(*(cluster.registry.compatible() for _ in range(20)))
    assert cluster.decoder.asked == 1
    assert all(compatible.decoders("digest of decoder") for compatible in found)


async def test_concurrent_refreshes_share_the_next_one(cluster: Cluster) -> None:
    cluster.decoder.answer = asyncio.Event()
    first = asyncio.create_task(cluster.registry.refresh())
    await until(lambda: cluster.decoder.asked == 1)
    others = [asyncio.create_task(cluster.registry.refresh()) for _ in range(20)]
    await asyncio.sleep(0)  # lets each call refresh
    cluster.decoder.answer.set()
    await asyncio.gather(first, *others)
    assert cluster.decoder.asked == 2


async def test_replica_removed_during_describe_is_dropped(cluster: Cluster) -> None:
    await cluster.registry.refresh()
    cluster.decoder.answer = asyncio.Event()
    asking = asyncio.create_task(cluster.registry.refresh())
    await until(lambda: cluster.decoder.asked == 2)
    await cluster.pools["decoder"].close()
    await asking
    assert not cluster.registry.all("decoder")
    assert not (await cluster.registry.compatible()).decoders("")
    assert cluster.registry.last("decoder").ready, "the model is still known"
