"""The bounded admission queue: waiting and running work with costs, deadlines and load."""

from __future__ import annotations

import enum
import itertools
import time

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded
from runtime.observability.metrics import Metrics
from runtime.work.backlog import Backlog, is_late, retry_seconds
from runtime.work.estimator import Estimator


class TicketState(enum.Enum):
    """The state of a ticket."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Ticket:
    """One unit of admitted work. `Admission.admit` creates it, `Admission.finish` releases it."""

    __slots__ = ("arrived_at", "arrived_ns", "cost", "deadline", "finished_at", "number", "started_at", "state")
    _numbers = itertools.count()

    def __init__(self, cost: float, deadline: Deadline, now: float) -> None:
        self.number = next(self._numbers)
        self.cost = cost
        self.deadline = deadline
        self.state = TicketState.QUEUED
        self.arrived_at = now
        self.arrived_ns = time.time_ns()
        self.started_at = now
        self.finished_at = now

    @property
    def queue_seconds(self) -> float:
        """Seconds from arrival to start, or to now if the work has not started."""
        return (time.monotonic() if self.state is TicketState.QUEUED else self.started_at) - self.arrived_at


class Admission:
    """Bounds waiting work and measures running work. Use it on the event loop's thread only; counts and costs may be
    read from any thread.

    `queue_limit`: max waiting requests. `capacity`: max cost that runs concurrently.
    """

    def __init__(
        self,
        stage: str,
        *,
        queue_limit: int,
        capacity: float,
        setting: str = "HART_MAX_QUEUED_REQUESTS",
        metrics: Metrics | None = None,
        estimator: Estimator | None = None,
    ) -> None:
        if queue_limit < 0 or capacity <= 0:
            raise ValueError(f"queue_limit={queue_limit} must not be negative, capacity={capacity} must be positive")
        self.stage = stage
        self.queue_limit = queue_limit
        self.capacity = capacity
        self.setting = setting
        self.estimator = estimator or Estimator()
        self._metrics = metrics
        self._queued: dict[int, Ticket] = {}
        self._running: dict[int, Ticket] = {}
        if metrics:
            self._observe(metrics)

    def _observe(self, metrics: Metrics) -> None:
        metrics.queue_depth.observe(lambda: self.queued)
        metrics.queue_limit.observe(lambda: self.queue_limit)
        metrics.load.observe(lambda: self.load)
        for reason in ("queue_full", "deadline"):
            metrics.shed.add(0, reason=reason)

    def admit(self, cost: float = 1.0, deadline: Deadline | None = None) -> Ticket:
        """Take a place in the queue. Raises Overloaded at once if the queue is full, DeadlineExceeded if the work
        cannot finish in time (estimated from the measured work ahead and its own compute)."""
        deadline = deadline or Deadline.none()
        if self.backlog().is_full(self.queue_limit):
            self._shed("queue_full")
            raise Overloaded(self.stage, self.setting, retry_after=retry_seconds(self.estimated_wait()))
        needed = self.estimated_wait(cost) + self.estimator.fastest(cost)
        if is_late(deadline.remaining(), needed):
            self._shed("deadline")
            left = max(0.0, deadline.remaining())
            raise DeadlineExceeded(self.stage, f"{left:.3f} s left, about {needed:.3f} s needed")
        ticket = Ticket(cost, deadline, time.monotonic())
        self._queued[ticket.number] = ticket
        return ticket

    def start(self, ticket: Ticket) -> None:
        """Move a waiting ticket to the running work."""
        if ticket.state is not TicketState.QUEUED:
            raise ValueError(f"ticket {ticket.number} is {ticket.state.value}, not queued")
        del self._queued[ticket.number]
        ticket.state = TicketState.RUNNING
        ticket.started_at = time.monotonic()
        self._running[ticket.number] = ticket
        if self._metrics:
            self._metrics.queue_seconds.record(ticket.queue_seconds)

    def finish(self, ticket: Ticket) -> None:
        """Release the ticket in any state. A second call does nothing."""
        self._queued.pop(ticket.number, None)
        self._running.pop(ticket.number, None)
        if ticket.state is not TicketState.DONE:
            ticket.state = TicketState.DONE
            ticket.finished_at = time.monotonic()

    def expire(self, ticket: Ticket) -> DeadlineExceeded:
        """Release a waiting ticket whose deadline has passed or cannot be met. Returns the error for its caller."""
        self.finish(ticket)
        self._shed("deadline")
        return DeadlineExceeded(self.stage, f"waited {ticket.finished_at - ticket.arrived_at:.3f} s in the queue")

    def hopeless(self, ticket: Ticket) -> bool:
        """True if a waiting ticket could not finish in time even if it started now."""
        return is_late(ticket.deadline.remaining(), self.estimator.fastest(ticket.cost))

    def observe(self, cost: float, seconds: float) -> None:
        """Record that work of `cost` took `seconds` of engine time."""
        self.estimator.observe(cost, seconds)

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return len(self._queued)

    @property
    def running(self) -> int:
        """Requests running."""
        return len(self._running)

    @property
    def queued_cost(self) -> float:
        """The cost of the waiting work."""
        return sum(t.cost for t in list(self._queued.values()))

    @property
    def running_cost(self) -> float:
        """The cost of the running work."""
        return sum(t.cost for t in list(self._running.values()))

    @property
    def load(self) -> float:
        """Queued plus running cost over capacity: the autoscaling signal."""
        return self.backlog().load(self.capacity)

    def backlog(self) -> Backlog:
        """The waiting and running work now."""
        running = list(self._running.values())
        first_start = min((t.started_at for t in running), default=None)
        return Backlog(
            queued=self.queued,
            queued_cost=self.queued_cost,
            running_cost=sum(t.cost for t in running),
            running_for=None if first_start is None else time.monotonic() - first_start,
        )

    def estimated_wait(self, cost: float = 1.0) -> float:
        """Estimated seconds until work of `cost` that arrives now would start: the cost ahead of it that cannot run
        beside it, at the best measured throughput. 0 without measurements."""
        return self.backlog().wait(cost, self.capacity, self.estimator.throughput())

    def running_seconds(self) -> float:
        """Estimated seconds of compute left for the running work; 0 without measurements."""
        return self.backlog().running_seconds(self.estimator.throughput())

    def queued_seconds(self) -> float:
        """Estimated seconds of compute for the waiting work; 0 without measurements."""
        return self.queued_cost / self.estimator.throughput()

    def _shed(self, reason: str) -> None:
        if self._metrics:
            self._metrics.shed.add(reason=reason)
