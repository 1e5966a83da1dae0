"""The generator: images advance scale by scale, in the batches that the product's `schedule` chooses."""

from __future__ import annotations

import simpy

from planner.profile import StageProfile
from planner.simulation.job import Failure, Job, Steps
from planner.simulation.replica import Replica
from runtime.work.backlog import is_late
from services.ar_generator.schedule import choose_batch, last_scale


class GeneratorReplica(Replica):
    """Interleaves images over its slots as `services.ar_generator.scheduler.Scheduler` does."""

    def __init__(self, env: simpy.Environment, stage: str, profile: StageProfile) -> None:
        super().__init__(env, stage, profile, float(profile.slots))
        self._slots: list[Job] = []
        """Jobs that hold a slot, oldest first."""
        self._preempted = False
        self._reconsider = False

    def _wake(self) -> None:
        self._reconsider = True
        super()._wake()

    def _step(self) -> Steps:
        self._reconsider = False
        self._drop()
        self._assign()
        if self._slots:
            yield from self._advance(self._choose())

    def _drop(self) -> None:
        """End jobs whose caller has left or whose deadline cannot be met."""
        for job in [*self._slots, *self.waiting]:
            if job.over or self._is_late(job, job.scale):
                self._end(job, Failure(self.stage, "deadline"))

    def _is_late(self, job: Job, scale: int) -> bool:
        return is_late(job.deadline - self.env.now, self.estimates.remaining(scale))

    def _assign(self) -> None:
        while self.waiting and len(self._slots) < self.profile.slots:
            job = next(iter(self.waiting))
            self._start(job)
            self._slots.append(job)
            job.moved_at = self.env.now

    def _choose(self) -> list[Job]:
        starved_since = self.env.now - self.profile.starvation_seconds
        maxima = self.profile.max_batch_per_scale
        choice = choose_batch(self._slots, maxima, starved_since, may_preempt=not self._preempted)
        self._preempted = choice.preempts
        return choice.batch

    def _advance(self, batch: list[Job]) -> Steps:
        """Run the batch's next scales until a new choice may be better."""
        scale, maxima = batch[0].scale, self.profile.max_batch_per_scale
        last = last_scale(len(batch), scale, maxima) if len(batch) == len(self._slots) else scale
        deadline = min(job.deadline for job in batch)
        while True:
            seconds = self.profile.scales[scale].seconds(len(batch))
            yield from self._compute(seconds)
            self._record(batch, scale, seconds)
            scale += 1
            late = scale < len(maxima) and self.env.now >= deadline - self.estimates.remaining(scale)
            if scale > last or self._reconsider or late:
                break
        if scale == len(maxima):
            for job in batch:
                self._end(job)

    def _record(self, batch: list[Job], scale: int, seconds: float) -> None:
        for job in batch:
            job.moved_at = self.env.now
            job.device_seconds += seconds / len(batch)
            job.scale = scale + 1
            if job.scale == len(self.profile.scales):
                self.estimates.observe(1.0, job.device_seconds)
            elif self._is_late(job, job.scale):
                self._reconsider = True
            if job.previews and not job.over:
                job.previews(scale)

    def _end(self, job: Job, failure: Failure | None = None) -> None:
        self.waiting.pop(job, None)
        self.running.pop(job, None)
        if job in self._slots:
            self._slots.remove(job)
        job.end(failure)


class WholeRequestReplica(GeneratorReplica):
    """A generator for comparison: a batch of images starts together at scale 0, runs all scales and ends together."""

    def _step(self) -> Steps:
        self._drop()
        self._assign()
        batch = list(self._slots)
        for scale, cost in enumerate(self.profile.scales if batch else ()):
            width = self.profile.max_batch_per_scale[scale]
            for at in range(0, len(batch), width):
                part = batch[at : at + width]
                seconds = cost.seconds(len(part))
                yield from self._compute(seconds)
                self._record(part, scale, seconds)
        for job in batch:
            self._end(job)
