"""Waiting and running work of one engine, and what follows from it for new work: pure functions, shared by `Admission`
and the planner's simulation."""

from __future__ import annotations

from dataclasses import dataclass

MIN_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.1, 30.0


@dataclass(frozen=True)
class Backlog:
    """The work at one moment."""

    queued: int
    """Requests waiting."""
    queued_cost: float
    """The cost of the waiting work."""
    running_cost: float
    """The cost of the running work."""
    running_for: float | None
    """Seconds since the first start among the running work; None if nothing runs."""

    def is_full(self, queue_limit: int) -> bool:
        """True if one more request must be refused. An idle engine always takes one."""
        return self.queued >= max(queue_limit, 0 if self.running_cost else 1)

    def load(self, capacity: float) -> float:
        """Queued plus running cost over capacity: the autoscaling signal."""
        return (self.queued_cost + self.running_cost) / capacity

    def running_seconds(self, throughput: float) -> float:
        """Estimated seconds of compute left for the running work. `throughput`: cost per second."""
        if self.running_for is None:
            return 0.0
        return max(0.0, self.running_cost / throughput - self.running_for)

    def wait(self, cost: float, capacity: float, throughput: float) -> float:
        """Estimated seconds until work of `cost` that arrives now would start: the cost ahead of it that cannot run
        beside it, at `throughput` (cost per second)."""
        beyond = max(0.0, min(self.queued_cost, self.queued_cost + cost - capacity))
        ahead = beyond / throughput
        if self.running_cost >= capacity or self.queued:
            ahead += self.running_seconds(throughput)
        return ahead


def retry_seconds(wait: float) -> float:
    """`retry_after` of a refusal by a full queue whose estimated wait is `wait` seconds."""
    return min(MAX_RETRY_SECONDS, max(MIN_RETRY_SECONDS, wait))


def is_late(remaining: float, needed: float) -> bool:
    """True if work that needs so many seconds cannot finish in the `remaining` ones."""
    return remaining <= needed
