"""When a failed attempt may be made again. Knows pools and deadlines, no service."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from runtime.deadline import Deadline
from runtime.errors import StageUnavailable
from runtime.metrics import Metrics
from runtime.pool import Pool
from runtime.replica import Replica

R = TypeVar("R")
log = logging.getLogger(__name__)
MAX_ATTEMPTS = 4
PATIENCE_SECONDS = 1.0  # waiting for a replica to come back, before the caller hears UNAVAILABLE


class RetryBudget:
    """A bucket of tokens: a request adds `ratio`, a retry takes one. When most attempts fail, retries stop, so that
    they do not drown what is left of a stage."""

    def __init__(self, *, ratio: float = 0.2, reserve: float = 20.0) -> None:
        self._ratio = ratio
        self._reserve = reserve
        self._tokens = reserve

    def deposit(self) -> None:
        """Note a request."""
        self._tokens = min(self._reserve, self._tokens + self._ratio)

    def withdraw(self) -> bool:
        """True when one more retry is allowed."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


async def with_retries(
    pool: Pool,
    attempt: Callable[[Replica], Awaitable[R]],
    *,
    deadline: Deadline,
    budget: RetryBudget,
    cost: float = 1.0,
    metrics: Metrics | None = None,
    attempts: int = MAX_ATTEMPTS,
) -> R:
    """The result of `attempt` on a replica; on StageUnavailable again on another, while time and budget allow."""
    budget.deposit()
    avoid: set[str] = set()
    for number in range(1, attempts + 1):
        await pool.wait_ready(max(0.0, min(PATIENCE_SECONDS, deadline.remaining() / 2)))
        try:
            async with pool.replica(cost, avoid=avoid) as replica:
                avoid.add(replica.address)
                return await attempt(replica)
        except StageUnavailable:
            if number == attempts or deadline.expired or not budget.withdraw():
                raise
            log.info("another attempt on %s", pool.stage, extra={"attempt": number + 1})
            if metrics:
                metrics.retries.add(stage=pool.stage)
            await asyncio.sleep(min(0.02 * 2**number * random.random(), max(0.0, deadline.remaining())))
    raise AssertionError("the loop returns or raises")
