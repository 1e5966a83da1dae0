"""A gateway's calls to a stage, with retries on other replicas."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import simpy

from gateway.stages.backoff import pause_seconds
from planner.fleet import GatewayLimits
from planner.simulation.batching import DecoderReplica
from planner.simulation.job import Failure, Job, Steps
from planner.simulation.pool import Connection, Pool
from planner.simulation.replica import Replica
from planner.simulation.scope import Scope
from runtime.calls.retry_budget import RetryBudget

READY_SECONDS = 2.0
"""How long a call waits for a first ready replica (`gateway/stages/retry.py`)."""
COST = 1.0
"""Of a call in outstanding work, previews included (`gateway/stages/retry.py`)."""


class Calls:
    """The calls of one gateway to one stage."""

    def __init__(self, env: simpy.Environment, pool: Pool, limits: GatewayLimits, source: random.Random) -> None:
        self.env, self.pool, self.limits, self._source = env, pool, limits, source
        self.stage = pool.replicas.stage
        self.waiting = 0
        """Calls that wait for the first replica."""
        self._latency: Sequence[float] = pool.replicas.profile.call_seconds
        self._budget = RetryBudget(
            limits.retry_ratio, limits.retry_burst, limits.retry_per_second, clock=lambda: env.now
        )

    def call(self, scope: Scope, make: Callable[[], Job], encode: str = "") -> Steps:
        """A process: runs a job that `make` returns, on a replica; `encode` is the file format of a decoder's answer.
        Returns None or the Failure that ends the call."""
        tried: list[Replica] = []
        while True:
            job = scope.opened(make())
            connection = yield from self._connection(job, tried)
            if connection is None:
                return Failure(self.stage, "unavailable", 1.0)
            tried.append(connection.replica)
            failure = yield from self._attempt(connection, job, encode)
            scope.closed(job)
            if failure is None:
                self._budget.succeeded()
            if failure is None or failure.reason != "unavailable" or not (yield from self._pause(job, len(tried))):
                return failure

    def _connection(self, job: Job, tried: Sequence[Replica]) -> Steps:
        until = self.env.now + READY_SECONDS
        if self.waiting < self.limits.max_waiting_requests:
            until = job.deadline - self.pool.replicas.profile.alone()
        self.waiting += 1
        while (found := self.pool.choose(tried)) is None and self.env.now < until and not job.over:
            yield self.pool.replicas.changed | self.env.timeout(until - self.env.now)
        self.waiting -= 1
        return found

    def _pause(self, job: Job, attempts: int) -> Steps:
        """True after the pause before the next attempt; False if the call may not be retried."""
        pause = pause_seconds(attempts - 1, self._source.uniform)
        if attempts >= self.limits.retry_attempts or self.env.now + pause >= job.deadline or not self._budget.spend():
            return False
        yield self.env.timeout(pause)
        return True

    def _attempt(self, connection: Connection, job: Job, encode: str) -> Steps:
        connection.outstanding += COST
        replica, latency = connection.replica, self._source.choice(self._latency)
        try:
            yield self.env.timeout(latency / 2)
            if replica.draining:
                return Failure(self.stage, "unavailable")
            failure = replica.submit(job)
            if failure is None:
                failure = yield job.done
                if failure is not None:
                    replica.leave(job)
            if failure is None and encode and isinstance(replica, DecoderReplica):
                yield from replica.encode(encode)
                failure = Failure(self.stage, "unavailable") if replica.lost else None
            yield self.env.timeout(latency / 2)
            return failure
        finally:
            connection.outstanding -= COST
