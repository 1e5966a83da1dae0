"""Who may come in: a bounded room for waiting and running work, with costs, deadlines and load. Knows no batches."""

from __future__ import annotations

import enum
import itertools
import time

from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded
from runtime.observability.metrics import Metrics
from runtime.work.estimator import Estimator


class TicketState(enum.Enum):
    """Where a ticket stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class Ticket:
    """One piece of admitted work. Made by `Admission.admit`, given back by `Admission.finish`."""

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
        """Time from arrival to the start (so far, where it has not started)."""
        return (time.monotonic() if self.state is TicketState.QUEUED else self.started_at) - self.arrived_at


class Admission:
    """Bounds what waits and measures what runs. To be used from the event loop's thread only; counts and costs may be
    read from any.

    `queue_limit`: requests that may wait. `capacity`: the cost that runs at the same time at full occupation.
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
        """A place in the queue. Raises Overloaded at once when it is full, DeadlineExceeded when the work could not
        finish in time (what waits ahead, then its own compute, both as measured)."""
        deadline = deadline or Deadline.none()
        if self.queued >= max(self.queue_limit, 0 if self.running_cost else 1):
            self._shed("queue_full")
            raise Overloaded(self.stage, self.setting, retry_after=min(30.0, max(0.1, self.estimated_wait())))
        needed = self.estimated_wait(cost) + self.estimator.fastest(cost)
        if deadline.remaining() <= needed:
            self._shed("deadline")
            left = max(0.0, deadline.remaining())
            raise DeadlineExceeded(self.stage, f"{left:.3f} s are left and about {needed:.3f} s are needed")
        ticket = Ticket(cost, deadline, time.monotonic())
        self._queued[ticket.number] = ticket
        return ticket

    def start(self, ticket: Ticket) -> None:
        """Move a waiting ticket to the running ones."""
        if ticket.state is not TicketState.QUEUED:
            raise ValueError(f"ticket {ticket.number} is {ticket.state.value}, not queued")
        del self._queued[ticket.number]
        ticket.state = TicketState.RUNNING
        ticket.started_at = time.monotonic()
        self._running[ticket.number] = ticket
        if self._metrics:
            self._metrics.queue_seconds.record(ticket.queue_seconds)

    def finish(self, ticket: Ticket) -> None:
        """Free the ticket's place, wherever it stands; a second time does nothing."""
        self._queued.pop(ticket.number, None)
        self._running.pop(ticket.number, None)
        if ticket.state is not TicketState.DONE:
            ticket.state = TicketState.DONE
            ticket.finished_at = time.monotonic()

    def expire(self, ticket: Ticket) -> DeadlineExceeded:
        """Free a waiting ticket whose time has passed (or no longer suffices); the error for its caller."""
        self.finish(ticket)
        self._shed("deadline")
        return DeadlineExceeded(self.stage, f"waited {ticket.finished_at - ticket.arrived_at:.3f} s in the queue")

    def hopeless(self, ticket: Ticket) -> bool:
        """True when a waiting ticket can no longer finish in time, were it started now."""
        return ticket.deadline.remaining() <= self.estimator.fastest(ticket.cost)

    def observe(self, cost: float, seconds: float) -> None:
        """Note that work of `cost` took `seconds` of the engine."""
        self.estimator.observe(cost, seconds)

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return len(self._queued)

    @property
    def running(self) -> int:
        """Requests in work."""
        return len(self._running)

    @property
    def queued_cost(self) -> float:
        """The cost of what waits."""
        return sum(t.cost for t in list(self._queued.values()))

    @property
    def running_cost(self) -> float:
        """The cost of what runs."""
        return sum(t.cost for t in list(self._running.values()))

    @property
    def load(self) -> float:
        """Queued plus running cost over capacity: the autoscaling signal."""
        return (self.queued_cost + self.running_cost) / self.capacity

    def estimated_wait(self, cost: float = 1.0) -> float:
        """Seconds until work of `cost` that arrives now would start: all cost ahead of it beyond what fits beside it,
        at the best rate measured. 0 where nothing was measured."""
        queued = self.queued_cost
        beyond = max(0.0, min(queued, queued + cost - self.capacity))
        ahead = beyond / self.estimator.throughput()
        if self.running_cost >= self.capacity or self._queued:
            ahead += self.running_seconds()
        return ahead

    def running_seconds(self) -> float:
        """Compute left of what runs, in seconds, as far as it is known."""
        if not self._running:
            return 0.0
        begun = min(t.started_at for t in self._running.values())
        return max(0.0, self.running_cost / self.estimator.throughput() - (time.monotonic() - begun))

    def queued_seconds(self) -> float:
        """Compute of what waits, in seconds, as far as it is known."""
        return self.queued_cost / self.estimator.throughput()

    def _shed(self, reason: str) -> None:
        if self._metrics:
            self._metrics.shed.add(reason=reason)
