"""runtime.calls: pools of replicas that join, leave, hang and stop, over real sockets; the retry budget."""

from __future__ import annotations

import asyncio

import pytest

from runtime.calls.pool import Pool
from runtime.discovery.endpoint import Endpoint
from runtime.discovery.sources import StaticSource
from runtime.errors import StageUnavailable
from tests.runtime.support import Launch, Proxy, until

SERVICE = "hart.v1.Decoder"


async def test_hanging_replica_fails_its_attempts_as_unavailable(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.calls.replica.ANSWER_SECONDS", 0.2)
    a = await launch()
    async with Proxy(a.app.port) as proxy:
        pool = Pool("decoder", SERVICE, StaticSource(frozenset({Endpoint(f"127.0.0.1:{proxy.port}")})))
        await pool.start()
        await until(lambda: pool.ready)  # on a busy machine the first probes may time out
        with pytest.raises(StageUnavailable, match="does not respond"):
            async with pool.replica():
                proxy.flowing.clear()
                await asyncio.sleep(60)
        task = asyncio.current_task()
        assert task
        assert task.cancelling() == 0
        assert pool.ready == []
        proxy.flowing.set()
        await until(lambda: pool.ready)
        await pool.close()
