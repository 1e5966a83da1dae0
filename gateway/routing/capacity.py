"""What the replicas can take and how long it lasts: for admission, cold starts and autoscaling."""

from __future__ import annotations

from hart.v1 import stage_pb2

from common.stages import STAGES
from gateway.routing.registry import ReplicaRegistry


class Capacity:
    """Room, load and times of the stages, as last described."""

    def __init__(self, registry: ReplicaRegistry) -> None:
        self._registry = registry

    def room(self, stage: str) -> int:
        """Requests that the ready replicas can hold, queued and running; 0 where a replica does not report it."""
        limits = self._ready_limits(stage)
        if not all(limit.concurrency for limit in limits):
            return 0
        return sum(limit.queue_limit + limit.concurrency for limit in limits)

    def slots(self, stage: str) -> int:
        """Requests that the ready replicas run at the same time, as far as they report it."""
        return sum(limit.concurrency for limit in self._ready_limits(stage))

    def wait_seconds(self, stage: str) -> float:
        """Time in the queue of the least busy replica."""
        return min((one.load.estimated_wait_seconds for one in self._registry.all(stage)), default=0.0)

    def load(self, stage: str) -> float:
        """Queued plus running cost over the capacity of one replica, summed over the replicas."""
        return sum(one.load.load for one in self._registry.all(stage))

    def start_seconds(self, stage: str) -> float:
        """Time of a replica's start; 0 while unknown."""
        return self._registry.last(stage).cost.start_seconds

    def image_seconds(self) -> float:
        """Compute time of one image alone, summed over the stages; 0 while unknown."""
        return sum(self._registry.last(stage).cost.request_seconds for stage in STAGES)

    def _ready_limits(self, stage: str) -> list[stage_pb2.StageLimits]:
        return [one.limits for one in self._registry.all(stage, ready=True)]
