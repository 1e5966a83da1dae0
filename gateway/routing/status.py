"""The state of the stages, for Images.Status."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hart.v1 import images_pb2

from common.stages import STAGES
from gateway.config import GatewaySettings
from gateway.routing.problems import problems
from gateway.routing.registry import ReplicaRegistry
from runtime.calls.pool import Pool

MAX_AGE = 0.5  # seconds, of the descriptions in a response


class ClusterStatus:
    """Replicas, load and problems of the stages."""

    def __init__(self, pools: Mapping[str, Pool], registry: ReplicaRegistry, settings: GatewaySettings) -> None:
        self._pools, self._registry, self._settings = pools, registry, settings

    async def stages(self) -> list[images_pb2.StageStatus]:
        """The stages in the order of a request's way."""
        await self._registry.refresh(MAX_AGE)
        return [self._stage(name) for name in STAGES]

    async def problems(self) -> list[str]:
        """Why no image can be drawn; empty while requests can be served."""
        return list(problems(self._pools, await self._registry.compatible(), self._settings))

    def _stage(self, stage: str) -> images_pb2.StageStatus:
        pool = self._pools[stage]
        loads = [one.load for one in self._registry.all(stage, ready=True)]
        return images_pb2.StageStatus(
            stage=stage,
            replicas=len(pool.replicas),
            ready=len(pool.ready),
            load=_mean(load.load for load in loads),
            queued=sum(load.queued for load in loads),
            running=sum(load.running for load in loads),
            model=self._registry.last(stage).model,
        )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
