"""A whole cluster, and the run of a workload on it."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import simpy

from common.stages import STAGES
from planner.fleet import Fleet, Loss
from planner.profile import Profile
from planner.simulation.autoscaler import Autoscaler
from planner.simulation.gateway import Gateway
from planner.simulation.job import Steps
from planner.simulation.pool import KINDS, Make, ReplicaSet
from planner.simulation.request import Outcome, Request
from planner.workload import Arrival


@dataclass(frozen=True)
class Usage:
    """What one stage used, over the time of the arrivals."""

    busy: float
    """Compute seconds over replica seconds."""
    replica_seconds: float
    device_seconds: float
    max_replicas: int


@dataclass(frozen=True)
class Run:
    """The result of a simulation."""

    outcomes: list[Outcome]
    seconds: float
    """From the start to the last arrival."""
    usage: Mapping[str, Usage]
    gateway_busy: float
    """Share of a gateway's thread, mean over the gateways."""


@dataclass(frozen=True)
class Options:
    """What a run may vary besides workload and fleet."""

    seed: int = 0
    cached_share: float = 0.0
    """The share of prompts that the text encoder has cached."""
    kinds: Mapping[str, Make] = field(default_factory=lambda: KINDS)
    """The replica class of each stage."""


class Simulation:
    """One cluster. Use it for one run."""

    def __init__(self, profile: Profile, fleet: Fleet, options: Options | None = None) -> None:
        self._profile, self._fleet, self._options = profile, fleet, options or Options()
        self._source = random.Random(self._options.seed)
        self.env = simpy.Environment()
        self.stages = {
            name: ReplicaSet(self.env, name, profile.stages[name], self._options.kinds[name]) for name in STAGES
        }
        for name, replicas in self.stages.items():
            for _ in range(fleet.count(name)):
                replicas.add_ready()
        self._scalers = {
            name: Autoscaler(self.env, self.stages[name], policy) for name, policy in fleet.autoscaling.items()
        }
        self._gateways = [
            Gateway(self.env, profile, fleet.limits, self.stages, self._source) for _ in range(fleet.gateways)
        ]

    def run(self, arrivals: Iterable[Arrival]) -> Run:
        """Run until every request has ended."""
        processes: list[Any] = []
        for loss in self._fleet.losses:
            self.env.process(self._lose(loss))
        measured: dict[str, Usage] = {}
        arriving = self.env.process(self._arrive(arrivals, processes, measured))
        self.env.run(until=arriving)
        seconds = self.env.now
        busy = sum(g.cpu_seconds for g in self._gateways) / max(1e-9, seconds) / len(self._gateways)
        self.env.run(until=self.env.all_of(processes))
        return Run([process.value for process in processes], seconds, measured, busy)

    def _arrive(self, arrivals: Iterable[Arrival], processes: list[Any], measured: dict[str, Usage]) -> Steps:
        for number, arrival in enumerate(arrivals):
            yield self.env.timeout(max(0.0, arrival.at - self.env.now))
            gateway = self._gateways[number % len(self._gateways)]
            cached = self._source.random() < self._options.cached_share
            processes.append(self.env.process(Request(gateway, arrival, cached).run()))
        measured.update({name: self._usage(name) for name in STAGES})

    def _usage(self, name: str) -> Usage:
        replicas = self.stages[name]
        seconds = replicas.replica_seconds()
        scaler = self._scalers.get(name)
        return Usage(
            busy=replicas.busy_seconds() / seconds if seconds else 0.0,
            replica_seconds=seconds,
            device_seconds=seconds * self._profile.stages[name].devices,
            max_replicas=scaler.maximum if scaler else self._fleet.count(name),
        )

    def _lose(self, loss: Loss) -> Steps:
        yield self.env.timeout(loss.at)
        replicas = self.stages[loss.stage]
        for replica in replicas.ready[: loss.replicas]:
            replicas.lose(replica)
            self.env.process(replicas.start(self._fleet.provision_seconds))


def simulate(profile: Profile, fleet: Fleet, arrivals: Iterable[Arrival], options: Options | None = None) -> Run:
    """Run the arrivals (ascending by time) on a cluster of the profile's devices."""
    return Simulation(profile, fleet, options).run(arrivals)
