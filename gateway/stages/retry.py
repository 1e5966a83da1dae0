"""Attempts of one call over the replicas of a stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from opentelemetry.trace import Span

from gateway.routing.compatibility import CompatibleReplicas
from gateway.routing.registry import ReplicaRegistry
from gateway.stages.backoff import pause_seconds
from gateway.stages.rpc import Rpc
from gateway.stages.timings import CallRecord
from runtime.calls.pool import Pool
from runtime.calls.replica import Replica, ReplicaState
from runtime.calls.retry_budget import RetryBudget
from runtime.deadline import Deadline
from runtime.errors import (
    DeadlineExceeded,
    HartError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    StageUnavailable,
    Unauthenticated,
)
from runtime.observability.metrics import Metrics
from runtime.observability.tracing import Metadata, Tracing, server_attributes
from runtime.status import as_hart_error

Choose = Callable[[CompatibleReplicas], frozenset[str]]
"""Addresses of the replicas that may be called. Raises StageUnavailable where only incompatible ones exist."""
COST = 1.0  # of a call, in outstanding work: one image
READY_TIMEOUT = 2.0
"""Seconds to wait for a ready replica before the call fails with UNAVAILABLE."""
POLL_SECONDS = 0.05  # between checks for a replica that was set aside
CALLER_ERRORS_FROM_STAGES = (InvalidRequest, NotFound, Unauthenticated, PermissionDenied)
"""Errors about a message that the gateway built: a gateway bug, returned as INTERNAL."""
RETRYABLE = (StageUnavailable, DeadlineExceeded)
"""Errors that `Retry.after` accepts. It retries after DeadlineExceeded only if the deadline was extended meanwhile."""


@dataclass(frozen=True)
class RetryPolicy:
    """How often a stage's calls may be retried."""

    max_attempts: int
    deadline_margin: float
    """Seconds that the gateway keeps for itself."""
    budget: RetryBudget
    """Shared by all calls to the stage."""


@dataclass(frozen=True)
class StageTarget:
    """What all calls to a stage share."""

    pool: Pool
    registry: ReplicaRegistry
    policy: RetryPolicy
    tracing: Tracing
    metrics: Metrics


@dataclass(frozen=True)
class Attempt:
    """One attempt: the replica to call, and what to pass to it."""

    replica: Replica
    deadline: Deadline
    metadata: Metadata
    span: Span


class Retry:
    """The attempts of one call. A failed replica is avoided by the next attempt.

    while True:
        try:
            async with retry.attempt() as attempt:
                ...
        except RETRYABLE as error:
            await retry.after(error)
        else:
            ...
    """

    def __init__(
        self, rpc: Rpc, target: StageTarget, deadline: Deadline, call: CallRecord, choose: Choose | None = None
    ) -> None:
        self._rpc, self._target, self._deadline, self._call, self._choose = rpc, target, deadline, call, choose
        self._tried: set[str] = set()
        self._allowed = deadline

    @asynccontextmanager
    async def attempt(self) -> AsyncIterator[Attempt]:
        """A ready replica, leased until the block ends, inside a client span.

        Raises StageUnavailable without a ready, compatible replica; DeadlineExceeded without time.
        """
        rpc, self._allowed = self._rpc, self._deadline.earlier(self._target.policy.deadline_margin)
        self._allowed.require(rpc.stage)
        among = await self._candidates()
        async with self._target.pool.replica(COST, avoid=self._tried, among=among) as replica:
            self._tried.add(replica.address)
            method = rpc.method(replica.endpoint.protocol)
            with self._target.tracing.call(method, rpc.stage, server_attributes(replica.address)) as (span, metadata):
                try:
                    yield Attempt(replica, self._allowed, metadata, span)
                except CALLER_ERRORS_FROM_STAGES as error:
                    cause = RuntimeError(f"{rpc.stage} at {replica.address} refused: {error}")
                    raise as_hart_error(cause, rpc.stage) from error

    async def _candidates(self) -> frozenset[str] | None:
        """Addresses of the ready replicas that may be called; None for all. Waits for a replica that was set aside if
        no ready one is compatible."""
        timeout = Deadline.after(min(READY_TIMEOUT, self._allowed.remaining() / 2))
        while True:
            await self._target.pool.wait_ready(timeout.remaining())
            try:
                return self._choose(await self._target.registry.compatible()) if self._choose else None
            except StageUnavailable:
                if timeout.expired or all(r.state is not ReplicaState.FAILED for r in self._target.pool.replicas):
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def after(self, error: HartError) -> None:
        """Returns when the call may be tried again. Raises `error` otherwise."""
        if isinstance(error, DeadlineExceeded):
            extended = self._deadline.earlier(self._target.policy.deadline_margin).at > self._allowed.at
            if extended:  # a repeated request joined with more time
                return
            raise error
        pause = pause_seconds(self._call.retries)
        exhausted = self._call.retries + 1 >= self._target.policy.max_attempts or self._allowed.remaining() <= pause
        if exhausted or not self._target.policy.budget.spend():
            raise error
        self._call.retries += 1
        self._target.metrics.retries.add(stage=self._rpc.stage)
        await asyncio.sleep(pause)

    def succeeded(self) -> None:
        """Credits the stage's retry budget."""
        self._target.policy.budget.succeeded()
