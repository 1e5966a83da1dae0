"""runtime.calls: pools of replicas that join, leave, hang and stop, over real sockets; the retry budget."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from hart.v1 import decoder_pb2_grpc

from runtime import status
from runtime.calls.pool import Pool
from runtime.calls.replica import Replica
from runtime.calls.retry_budget import RetryBudget
from runtime.discovery.endpoint import Endpoint
from runtime.discovery.sources import FileSource, StaticSource
from runtime.errors import StageUnavailable
from tests.runtime.support import Launch, Proxy, request, until

SERVICE = "hart.v1.Decoder"


def pool_of(*running: Any, **kwargs: Any) -> Pool:
    return Pool(
        "decoder", SERVICE, StaticSource(frozenset(Endpoint(f"127.0.0.1:{r.app.port}") for r in running)), **kwargs
    )


async def decode(replica: Replica, value: float = 1.0) -> bytes:
    try:
        return (await decoder_pb2_grpc.DecoderStub(replica.channel).Decode(request(value), timeout=60)).image
    except grpc.RpcError as error:
        raise status.from_rpc_error(error, "decoder") from error


async def decode_anywhere(pool: Pool) -> bytes:
    avoid: set[str] = set()
    for _ in range(3):
        try:
            async with pool.replica(avoid=avoid) as replica:
                avoid.add(replica.address)
                return await decode(replica)
        except StageUnavailable:
            continue
    raise AssertionError("three attempts failed")


async def test_call_goes_to_the_replica_with_the_least_outstanding_cost(launch: Launch) -> None:
    a, b = await launch(), await launch()
    pool = pool_of(a, b)
    await pool.start(60)
    async with pool.replica(3.0) as first:
        seen = set()
        for _ in range(8):
            async with pool.replica(1.0) as other:
                seen.add(other.address)
        assert seen == {r.address for r in pool.replicas} - {first.address}
    await pool.close()


async def test_only_replicas_in_among_are_chosen(launch: Launch) -> None:
    pool = pool_of(await launch(), await launch())
    await pool.start(60)
    one = pool.replicas[0].address
    for _ in range(8):
        async with pool.replica(1.0, among={one}, avoid={one}) as replica:
            assert replica.address == one
    with pytest.raises(StageUnavailable):
        pool.replica(1.0, among=set())
    await pool.close()


async def test_draining_replica_loses_no_call(launch: Launch) -> None:
    a, b = await launch(), await launch()
    pool = pool_of(a, b)
    await pool.start(60)
    await a.app.drain(1)
    answers = [await decode_anywhere(pool) for _ in range(10)]
    assert answers == [b"1.0"] * 10
    await until(lambda: [r.state.value for r in pool.replicas].count("not_ready") == 1)
    await pool.close()


@pytest.mark.parametrize("begun", [False, True], ids=["at once", "while it waits"])
async def test_closing_a_pool_closes_removed_replicas(begun: bool) -> None:
    pool = Pool("decoder", SERVICE, StaticSource(frozenset()))
    pool._adopt(frozenset({Endpoint("127.0.0.1:9")}))
    replica = pool.replicas[0]
    async with replica.attempt(1.0):
        pool._adopt(frozenset())
        if begun:
            await asyncio.sleep(0)
        await pool.close()
        assert replica._prober.done()
        assert replica.channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN


async def test_pool_without_a_ready_replica_is_unavailable() -> None:
    pool = Pool("decoder", SERVICE, StaticSource(frozenset({Endpoint("127.0.0.1:9")})))
    await pool.start(patience=0.5)
    with pytest.raises(StageUnavailable, match="decoder is unavailable"):
        pool.replica()
    await pool.close()


async def test_call_cut_in_flight_is_retried_on_another_replica(launch: Launch) -> None:
    a, b = await launch(), await launch()
    async with Proxy(a.app.port) as proxy:
        ends = frozenset({Endpoint(f"127.0.0.1:{proxy.port}"), Endpoint(f"127.0.0.1:{b.app.port}")})
        pool = Pool(
            "decoder", SERVICE, StaticSource(ends), choose=lambda rs: min(rs, key=lambda r: r.address != wanted)
        )
        wanted = f"127.0.0.1:{proxy.port}"
        await pool.start(60)
        a.engine.release.clear()
        running = asyncio.create_task(decode_anywhere(pool))
        await until(lambda: a.engine.batches)
        proxy.cut()
        assert await running == b"1.0"
        assert b.engine.batches == [1]
        await pool.close()


async def test_pool_follows_endpoints_in_a_file(launch: Launch, tmp_path: Path) -> None:
    a, b = await launch(), await launch()
    listed = tmp_path / "decoder"
    first, second = f"127.0.0.1:{a.app.port}", f"127.0.0.1:{b.app.port}"
    listed.write_text(first)
    pool = Pool("decoder", SERVICE, FileSource(listed))
    await pool.start(60)
    assert [r.address for r in pool.ready] == [first]
    listed.write_text(f"{first}\n{second}  # joined\n")
    await until(lambda: len(pool.ready) == 2)
    a.engine.release.clear()
    async with pool.replica(avoid={second}) as replica:
        running = asyncio.create_task(decode(replica))
        await until(lambda: a.engine.batches)
        listed.write_text(second)
        await until(lambda: [r.address for r in pool.ready] == [second])
        listed.unlink()
        await asyncio.sleep(0.6)
        assert [r.address for r in pool.ready] == [second], "a missing file keeps the last known"
        a.engine.release.set()
        assert await running == b"1.0", "work on a replica that leaves is finished"
    await pool.close()


def test_retry_budget_bounds_retries_and_refills() -> None:
    now = 0.0
    budget = RetryBudget(ratio=0.5, reserve=2, per_second=0.1, clock=lambda: now)
    assert [budget.spend() for _ in range(3)] == [True, True, False]
    budget.succeeded()
    budget.succeeded()
    assert budget.spend()
    now = 9.0
    assert not budget.spend()
    now = 10.5
    assert budget.spend(), "time alone refills it"
    now = 1000.0
    assert [budget.spend() for _ in range(3)] == [True, True, False], "up to the reserve"
