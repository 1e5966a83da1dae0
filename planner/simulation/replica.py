"""One replica of a stage: its queue, admission and accounts. Subclasses choose and run batches."""

from __future__ import annotations

from abc import ABC, abstractmethod

import simpy

from planner.profile import StageProfile
from planner.simulation.estimates import Estimates
from planner.simulation.job import Failure, Job, Steps
from runtime.work.backlog import Backlog, is_late, retry_seconds


class Replica(ABC):
    """Admits jobs as `runtime.work.admission.Admission` does. `capacity`: max cost that runs concurrently."""

    def __init__(self, env: simpy.Environment, stage: str, profile: StageProfile, capacity: float) -> None:
        self.env, self.stage, self.profile, self.capacity = env, stage, profile, capacity
        self.estimates = Estimates(profile, lambda: env.now)
        self.waiting: dict[Job, None] = {}
        self.running: dict[Job, float] = {}
        """Jobs with the moments of their starts."""
        self.busy_seconds = 0.0
        self.began_at = env.now
        self.ended_at: float | None = None
        self.draining = self.lost = False
        self._arrived = env.event()
        self._process = env.process(self._live())

    # -- work --------------------------------------------------------------------------------------------------------

    def submit(self, job: Job) -> Failure | None:
        """Queue the job. Returns the refusal: a full queue, or a deadline that cannot be met."""
        backlog = self.backlog()
        if backlog.is_full(self.profile.queue_limit):
            wait = backlog.wait(1.0, self.capacity, self.estimates.throughput())
            return Failure(self.stage, "overloaded", retry_seconds(wait))
        needed = backlog.wait(job.cost, self.capacity, self.estimates.throughput()) + self.estimates.fastest(job.cost)
        if is_late(job.deadline - self.env.now, needed):
            return Failure(self.stage, "deadline")
        self.waiting[job] = None
        self._wake()
        return None

    def leave(self, job: Job) -> None:
        """The caller has left, or its deadline has passed. Running work occupies the engine until its batch ends."""
        self.waiting.pop(job, None)
        self._wake()

    def backlog(self) -> Backlog:
        """The waiting and running work now."""
        return Backlog(
            queued=len(self.waiting),
            queued_cost=sum(job.cost for job in self.waiting),
            running_cost=sum(job.cost for job in self.running),
            running_for=self.env.now - min(self.running.values()) if self.running else None,
        )

    def load(self) -> float:
        """`hart_load`."""
        return self.backlog().load(self.capacity)

    def wait_seconds(self) -> float:
        """Estimated seconds until new work would start."""
        return self.backlog().wait(1.0, self.capacity, self.estimates.throughput())

    # -- its life ----------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no new work and end after the work that is left."""
        self.draining = True
        self._wake()

    def lose(self) -> None:
        """End now. Its jobs fail with `unavailable`, which callers retry."""
        self.draining = self.lost = True
        if self._process.is_alive:
            self._process.interrupt()
        for job in [*self.running, *self.waiting]:
            job.end(Failure(self.stage, "unavailable", 1.0))
        self.running.clear()
        self.waiting.clear()
        self.ended_at = self.env.now

    def _live(self) -> Steps:
        try:
            while True:
                if not self.waiting and not self.running:
                    if self.draining:
                        break
                    yield self._arrived
                yield from self._step()
        except simpy.Interrupt:
            return
        self.ended_at = self.env.now

    @abstractmethod
    def _step(self) -> Steps:
        """Choose and run the next batch. Returns at once if there is none."""

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, self.env.event()
        arrived.succeed()

    def _start(self, job: Job) -> None:
        self.waiting.pop(job, None)
        self.running[job] = self.env.now

    def _compute(self, seconds: float) -> Steps:
        self.busy_seconds += seconds
        yield self.env.timeout(seconds)
