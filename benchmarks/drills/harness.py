"""What every drill works with: a cluster of real processes, a client, the reference images. Knows no fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hart.aio import AsyncClient
from hart.errors import HartError

from benchmarks.drills import metrics
from benchmarks.drills.cases import References, RequestCase, mixed
from benchmarks.harness.processes import Cluster, Process

SLOTS, QUEUE = 4, 6
SETTINGS = {
    "safety": {"torch_threads": "1"},
    "text_encoder": {"torch_threads": "1"},
    "ar_generator": {"torch_threads": "1", "slots": str(SLOTS), "max_queued_requests": str(QUEUE)},
    "decoder": {"torch_threads": "1", "max_queued_requests": str(QUEUE)},
}
"""By process name; the queues are short, so that a drill can fill them."""


@dataclass
class Harness:
    """What a drill works with."""

    cluster: Cluster
    gateway: Process
    client: AsyncClient
    cases: list[RequestCase]
    references: References

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
        """Return when the gateway reports every replica ready and no work. Raises TimeoutError."""
        end = time.monotonic() + seconds
        while not await self._in_order():
            if time.monotonic() > end:
                raise TimeoutError(f"the cluster was not ready and idle within {seconds} s")
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
async def opened(cluster: Cluster, references: References, **settings: str) -> AsyncIterator[Harness]:
    """The cluster behind a new gateway with these settings."""
    with cluster.another_gateway(**settings) as gateway:
        async with AsyncClient(gateway.address) as client:
            cases = mixed()
            harness = Harness(cluster, gateway, client, cases, references)
            references.inexact = 0
            await harness.settled()
            await references.learn(client, cases)
            await harness.settled()
            yield harness
