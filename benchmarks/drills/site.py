"""The place of a drill: a cluster of real processes, a client, the pictures in peace. Knows no failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hart.aio import AsyncClient
from hart.errors import HartError

from benchmarks.drills import metrics
from benchmarks.drills.asks import Ask, Truth, mixed
from tests.e2e.processes import Cluster, Process

SLOTS, QUEUE = 4, 6
SETTINGS = {
    "safety": {"torch_threads": "1"},
    "text_encoder": {"torch_threads": "1"},
    "ar_generator": {"torch_threads": "1", "slots": str(SLOTS), "max_queued_requests": str(QUEUE)},
    "decoder": {"torch_threads": "1", "max_queued_requests": str(QUEUE)},
}
"""By process name: queues short enough to be filled."""


@dataclass
class Site:
    """What a drill works with."""

    cluster: Cluster
    gateway: Process
    client: AsyncClient
    asks: list[Ask]
    truth: Truth

    def replicas(self, stage: str = "") -> list[Process]:
        """A stage's processes; without a name, all stages'."""
        if stage:
            return list(self.cluster.stages[stage])
        return [process for replicas in self.cluster.stages.values() for process in replicas]

    @property
    def processes(self) -> list[Process]:
        """The stages' and the gateway under drill."""
        return [*self.replicas(), self.gateway]

    async def settled(self, seconds: float = 120.0) -> None:
        """Return when the gateway calls every replica ready and nothing is in work. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not await self._in_order():
            if time.monotonic() > end:
                raise TimeoutError(f"the cluster did not come to rest within {seconds} s")
            await asyncio.sleep(0.1)

    async def _in_order(self) -> bool:
        try:
            status = await self.client.status(timeout=5)
        except HartError:
            return False
        return not status.inflight and all(
            s.ready == s.replicas and not s.queued and not s.running for s in status.stages
        )

    async def total(self, stage: str, name: str, **labels: str) -> float:
        """A metric, summed over a stage's replicas."""
        return await metrics.total(self.replicas(stage), name, **labels)


@asynccontextmanager
async def opened(cluster: Cluster, truth: Truth, **settings: str) -> AsyncIterator[Site]:
    """The cluster behind a gateway of its own with these settings."""
    with cluster.another_gateway(**settings) as gateway:
        async with AsyncClient(gateway.address) as client:
            asks = mixed()
            site = Site(cluster, gateway, client, asks, truth)
            truth.inexact = 0
            await site.settled()
            await truth.learn(client, asks)
            await site.settled()
            yield site
