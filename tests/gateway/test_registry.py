"""What is remembered of a replica is what it said last, since it became ready: fake stages on real sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from common.stages import STAGES
from gateway.routing.registry import ReplicaRegistry
from runtime.calls.pool import Pool
from runtime.calls.replica import ReplicaState
from runtime.discovery.sources import source
from tests.gateway.support import FakeStage, serve, until


@dataclass
class Slow(FakeStage):
    """Describes itself as it was when it was asked, when `answer` is set."""

    answer: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def Describe(self, request: Any, context: Any) -> Any:
        self.asked += 1
        said, answer = await super().Describe(request, context), self.answer
        await answer.wait()
        return said


@pytest.mark.parametrize("load", [float("nan"), float("inf")])
async def test_a_load_that_is_not_finite_is_none(load: float, cluster: "Cluster") -> None:
    cluster.decoder.load = load
    await cluster.registry.refresh()
    [said] = cluster.registry.all("decoder")
    assert said.load.load == 0
    assert said.stage == "decoder"


@dataclass
class Cluster:
    """One replica of each stage, and who asks them. `decoder` may take its time."""

    decoder: Slow
    pools: dict[str, Pool]
    registry: ReplicaRegistry

    @property
    def digest(self) -> str:
        return self.registry.model_of(self.pools["decoder"].replicas[0]).digest


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        fakes = {stage: Slow(stage) for stage in STAGES}
        pools = {}
        for stage, fake in fakes.items():
            fake.answer.set()
            _, app = await serve(fake)
            stack.push_async_callback(app.stop)
            pools[stage] = Pool(stage, STAGES[stage].service, source(f"127.0.0.1:{fake.port}"))
            stack.push_async_callback(pools[stage].close)
            await pools[stage].start(60)
        yield Cluster(fakes["decoder"], pools, ReplicaRegistry(pools, every=60.0))


async def test_a_replica_is_asked_once_and_the_lines_stand_until_something_changes(cluster: Cluster) -> None:
    compatible = await cluster.registry.compatible()
    assert compatible.decoders("digest of decoder")
    assert await cluster.registry.compatible() is compatible
    assert cluster.decoder.asked == 1
    cluster.decoder.digest = "D2"
    await cluster.registry.refresh()
    assert (await cluster.registry.compatible()).decoders("D2")


async def test_a_replica_that_was_away_is_asked_before_it_is_counted_on(cluster: Cluster) -> None:
    await cluster.registry.compatible()
    replica = cluster.pools["decoder"].replicas[0]
    cluster.decoder.digest = "D2"  # another process at the same address
    replica.set_aside()
    assert not (await cluster.registry.compatible()).decoders("D1"), "no replica is ready"
    await until(lambda: replica.state is ReplicaState.READY)
    assert cluster.digest == ""
    assert (await cluster.registry.compatible()).decoders("D2")


async def test_a_replica_that_has_not_spoken_is_not_given_anothers_digest(cluster: Cluster) -> None:
    await cluster.registry.refresh()
    replica = cluster.pools["decoder"].replicas[0]
    assert cluster.registry.about("decoder", replica).model.digest == "digest of decoder"
    replica.set_aside()
    await until(lambda: replica.state is ReplicaState.READY)
    about = cluster.registry.about("decoder", replica)
    assert (about.model.name, about.model.digest, about.shape.width) == ("tiny", "", 64)
    assert cluster.registry.last("decoder").model.digest == "digest of decoder"


async def test_an_answer_that_comes_late_does_not_replace_a_newer_one(cluster: Cluster) -> None:
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


async def test_many_that_want_the_lines_at_once_ask_a_stranger_once(cluster: Cluster) -> None:
    found = await asyncio.gather(*(cluster.registry.compatible() for _ in range(20)))
    assert cluster.decoder.asked == 1
    assert all(compatible.decoders("digest of decoder") for compatible in found)


async def test_all_who_wait_for_a_refresh_share_the_next_one(cluster: Cluster) -> None:
    cluster.decoder.answer = asyncio.Event()
    first = asyncio.create_task(cluster.registry.refresh())
    await until(lambda: cluster.decoder.asked == 1)
    others = [asyncio.create_task(cluster.registry.refresh()) for _ in range(20)]
    await asyncio.sleep(0)  # they have asked by now
    cluster.decoder.answer.set()
    await asyncio.gather(first, *others)
    assert cluster.decoder.asked == 2


async def test_a_replica_that_goes_while_it_is_asked_is_forgotten(cluster: Cluster) -> None:
    await cluster.registry.refresh()
    cluster.decoder.answer = asyncio.Event()
    asking = asyncio.create_task(cluster.registry.refresh())
    await until(lambda: cluster.decoder.asked == 2)
    await cluster.pools["decoder"].close()
    await asking
    assert not cluster.registry.all("decoder")
    assert not (await cluster.registry.compatible()).decoders("")
    assert cluster.registry.last("decoder").ready, "the model is still known"
