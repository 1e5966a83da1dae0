"""A stage that batches whole requests: safety, the text encoder, and the decoder with its image encoder."""

from __future__ import annotations

import simpy

from planner.profile import StageProfile
from planner.simulation.job import Failure, Job, Steps
from planner.simulation.replica import Replica
from runtime.work.backlog import is_late
from runtime.work.batches import batch_of, fill_seconds

PREVIEW = "preview"
"""The key of preview jobs: they share no batch with full-size images."""
MAX_WAIT = 0.0
"""HART_BATCH_WAIT_TIMEOUT_SECONDS."""


class BatchingReplica(Replica):
    """Runs batches as `runtime.work.batcher.Batcher` does. Its capacity is one batch."""

    def __init__(self, env: simpy.Environment, stage: str, profile: StageProfile) -> None:
        super().__init__(env, stage, profile, float(profile.max_batch))

    def _step(self) -> Steps:
        yield from self._fill()
        batch = self._take()
        if not batch:
            return
        seconds = self._seconds(batch)
        yield from self._compute(seconds)
        for job in batch:
            self.running.pop(job, None)
        self.estimates.observe(sum(job.cost for job in batch), seconds)
        for job in batch:
            job.end()

    def _fill(self) -> Steps:
        while self.waiting:
            head = next(iter(self.waiting))
            size = len(batch_of(head, self.waiting, self.profile.max_batch))
            left = fill_seconds(size, self.profile.max_batch, self.env.now - head.arrived_at, MAX_WAIT)
            if left <= 0:
                return
            yield self._arrived | self.env.timeout(left)

    def _take(self) -> list[Job]:
        for job in [j for j in self.waiting if is_late(j.deadline - self.env.now, self.estimates.fastest(j.cost))]:
            self.waiting.pop(job)
            job.end(Failure(self.stage, "deadline"))
        if not self.waiting:
            return []
        batch = batch_of(next(iter(self.waiting)), self.waiting, self.profile.max_batch)
        for job in batch:
            self._start(job)
        return batch

    def _seconds(self, batch: list[Job]) -> float:
        size = len(batch)
        if batch[0].key == PREVIEW:
            return self.profile.preview_seconds * self.profile.batch.seconds(size) / self.profile.batch.seconds(1)
        return self.profile.batch.seconds(size)


class DecoderReplica(BatchingReplica):
    """A decoder: its threads encode files beside the engine."""

    def __init__(self, env: simpy.Environment, stage: str, profile: StageProfile) -> None:
        super().__init__(env, stage, profile)
        self._threads = simpy.Resource(env, profile.encode_threads)

    @property
    def _held(self) -> int:
        return int(self._threads.count) + len(self._threads.queue)

    def submit(self, job: Job) -> Failure | None:
        """Queue the job. A full image encoder refuses too."""
        if self._held >= self.profile.queue_limit:
            return Failure(self.stage, "overloaded", 1.0)
        return super().submit(job)

    def load(self) -> float:
        """`hart_load`: the max of the engine's and the image encoder's."""
        return max(super().load(), self._held / self.profile.encode_threads)

    def encode(self, format: str) -> Steps:
        """Encode one file; `preview`: a preview's."""
        seconds = self.profile.preview_encode_seconds
        if format != PREVIEW:
            seconds = self.profile.encode_seconds.get(format, 0.0)
        with self._threads.request() as thread:
            yield thread
            yield self.env.timeout(seconds)
