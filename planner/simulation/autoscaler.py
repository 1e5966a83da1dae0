"""The HorizontalPodAutoscaler of a stage, with the delays of its metric and of new pods."""

from __future__ import annotations

import math
from collections import deque

import simpy

from planner.fleet import Autoscaling
from planner.simulation.job import Steps
from planner.simulation.pool import ReplicaSet


def desired_replicas(load: float, replicas: int, policy: Autoscaling) -> int:
    """Replicas for a summed load, before bounds on the speed of change: the formula of Kubernetes' autoscaler with a
    target of type AverageValue."""
    ratio = load / (policy.target_load * replicas) if replicas else math.inf
    wanted = replicas if abs(ratio - 1) <= policy.tolerance else math.ceil(load / policy.target_load)
    return min(policy.max_replicas, max(policy.min_replicas, wanted))


class Autoscaler:
    """Scrapes the load, decides every `sync_seconds`, starts and drains replicas."""

    def __init__(self, env: simpy.Environment, replicas: ReplicaSet, policy: Autoscaling) -> None:
        self.env, self._replicas, self._policy = env, replicas, policy
        self._load = 0.0
        """As last scraped."""
        self._wanted: deque[tuple[float, int]] = deque()
        """(Moment, replicas) within the stabilization window."""
        self._changes: deque[tuple[float, int]] = deque()
        """(Moment, replicas added or removed) within the longest policy period."""
        self.maximum = replicas.count
        env.process(self._scrape())
        env.process(self._decide())

    def _scrape(self) -> Steps:
        while True:
            yield self.env.timeout(self._policy.metric_seconds)
            held = self._replicas.load()
            self._load = held

    def _decide(self) -> Steps:
        while True:
            yield self.env.timeout(self._policy.sync_seconds)
            self._apply(desired_replicas(self._load, self._replicas.count, self._policy))

    def _apply(self, wanted: int) -> None:
        policy, now = self._policy, self.env.now
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - policy.scale_down_seconds:
            self._wanted.popleft()
        while self._changes and self._changes[0][0] <= now - max(policy.up_seconds, policy.down_seconds):
            self._changes.popleft()
        current = self._replicas.count
        if wanted > current:
            self._grow(min(wanted, self._ceiling(current)) - current)
        else:
            stable = max(one for _, one in self._wanted)
            self._shrink(min(current - stable, policy.down_pods - self._changed(-1, policy.down_seconds)))

    def _ceiling(self, current: int) -> int:
        """Max replicas now: both policies of scale-up count from the replicas at the start of their period."""
        before = current - self._changed(1, self._policy.up_seconds)
        return max(before + self._policy.up_pods, math.ceil(before * (1 + self._policy.up_percent / 100)))

    def _changed(self, sign: int, seconds: float) -> int:
        return sum(sign * n for at, n in self._changes if n * sign > 0 and at > self.env.now - seconds)

    def _grow(self, count: int) -> None:
        if count <= 0:
            return
        self._changes.append((self.env.now, count))
        for _ in range(count):
            self.env.process(self._replicas.start(self._policy.provision_seconds))
        self.maximum = max(self.maximum, self._replicas.count)

    def _shrink(self, count: int) -> None:
        if count <= 0:
            return
        self._changes.append((self.env.now, -count))
        for _ in range(count):
            self._replicas.drain_one()
