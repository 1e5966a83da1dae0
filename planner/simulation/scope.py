"""The open jobs of one request: its deadline, or a failure of one image, ends all of them."""

from __future__ import annotations

import simpy

from planner.simulation.job import Failure, Job


class Scope:
    """Tracks a request's jobs until its end. `deadline`: simulated seconds."""

    def __init__(self, env: simpy.Environment, deadline: float) -> None:
        self.env, self.deadline = env, deadline
        self.ended = env.event()
        """Succeeds with None or the Failure of the request."""
        self._jobs: dict[Job, None] = {}
        self._current = "gateway"
        self._timer = env.timeout(max(0.0, deadline - env.now))
        assert self._timer.callbacks is not None  # noqa: S101 - a new event has callbacks
        self._timer.callbacks.append(lambda _: self.end(Failure(self._current, "deadline")))

    @property
    def over(self) -> bool:
        """True after the end of the request."""
        return bool(self.ended.triggered)

    def opened(self, job: Job) -> Job:
        """Track the job. If the request has ended, the job ends at once."""
        self._jobs[job] = None
        if self.over:
            job.end(Failure("gateway", "deadline"))
        return job

    def closed(self, job: Job) -> None:
        """The job's call has ended."""
        self._jobs.pop(job, None)

    def at(self, stage: str) -> None:
        """The stage where the request is now: its deadline is reported there."""
        self._current = stage

    def end(self, failure: Failure | None = None) -> None:
        """End the request once; its open jobs fail."""
        if self.over:
            return
        self.ended.succeed(failure)
        for job in list(self._jobs):
            job.end(failure or Failure("gateway", "cancelled"))
