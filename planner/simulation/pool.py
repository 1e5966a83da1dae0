"""The replicas of a stage, and each gateway's view of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass

import simpy

from planner.profile import StageProfile
from planner.simulation.batching import BatchingReplica, DecoderReplica
from planner.simulation.generating import GeneratorReplica
from planner.simulation.job import Steps
from planner.simulation.replica import Replica
from runtime.calls.choice import least_outstanding

Make = Callable[[simpy.Environment, str, StageProfile], Replica]
KINDS: dict[str, Make] = {
    "safety": BatchingReplica,
    "text_encoder": BatchingReplica,
    "ar_generator": GeneratorReplica,
    "decoder": DecoderReplica,
}


class ReplicaSet:
    """All replicas of one stage: ready ones, those that start, those that have ended."""

    def __init__(self, env: simpy.Environment, stage: str, profile: StageProfile, make: Make) -> None:
        self.env, self.stage, self.profile, self._make = env, stage, profile, make
        self.ready: list[Replica] = []
        self.ended: list[Replica] = []
        self.starting = 0
        self.started_seconds = 0.0
        """Seconds that replicas took to start: their devices are occupied meanwhile."""
        self.changed = env.event()

    @property
    def count(self) -> int:
        """Replicas that are ready or starting."""
        return len(self.ready) + self.starting

    def add_ready(self) -> None:
        """A replica that accepts work now."""
        self.ready.append(self._make(self.env, self.stage, self.profile))
        changed, self.changed = self.changed, self.env.event()
        changed.succeed()

    def start(self, provision_seconds: float) -> Steps:
        """A process: a replica that is ready after its pod is provisioned and its process has started."""
        self.starting += 1
        yield self.env.timeout(provision_seconds)
        yield self.env.timeout(self.profile.start_seconds)
        self.started_seconds += self.profile.start_seconds
        self.starting -= 1
        self.add_ready()

    def drain_one(self) -> None:
        """The newest replica takes no new work and ends after its running work."""
        if self.ready:
            self._end(self.ready[-1]).drain()

    def lose(self, replica: Replica) -> None:
        """The replica ends now; its calls fail."""
        self._end(replica).lose()

    def _end(self, replica: Replica) -> Replica:
        self.ready.remove(replica)
        self.ended.append(replica)
        return replica

    def load(self) -> float:
        """`hart_load`, summed over the ready replicas."""
        return sum(replica.load() for replica in self.ready)

    def capacity(self) -> int:
        """Images that the ready replicas hold, waiting and in work."""
        return sum(self.profile.queue_limit + int(replica.capacity) for replica in self.ready)

    def slots(self) -> int:
        """Images that the ready replicas work on at the same time."""
        return sum(int(replica.capacity) for replica in self.ready)

    def replica_seconds(self) -> float:
        """Seconds that replicas have occupied their devices, starts included."""
        lives = ((self.env.now if r.ended_at is None else r.ended_at) - r.began_at for r in [*self.ready, *self.ended])
        return sum(lives) + self.started_seconds

    def busy_seconds(self) -> float:
        """Seconds of compute of all replicas so far."""
        return sum(r.busy_seconds for r in [*self.ready, *self.ended])


@dataclass(eq=False)
class Connection:
    """One gateway's connection to a replica."""

    replica: Replica
    outstanding: float = 0.0
    """The cost of this gateway's attempts in progress."""


class Pool:
    """One gateway's replicas of one stage. It sees its own outstanding work only."""

    def __init__(self, replicas: ReplicaSet, source: random.Random) -> None:
        self.replicas = replicas
        self._source = source
        self._connections: dict[Replica, Connection] = {}

    def choose(self, avoid: Collection[Replica]) -> Connection | None:
        """The ready replica with the min outstanding cost; those in `avoid` only if there is no other."""
        ready = [self._connection(replica) for replica in self.replicas.ready]
        if not ready:
            return None
        return least_outstanding([c for c in ready if c.replica not in avoid] or ready, self._source.choice)

    def _connection(self, replica: Replica) -> Connection:
        return self._connections.setdefault(replica, Connection(replica))
