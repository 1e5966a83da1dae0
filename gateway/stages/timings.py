"""Where a request's time went: one record per call to a stage."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from hart.v1 import images_pb2, stage_pb2


@dataclass(eq=False)
class CallRecord:
    """One call to a stage, retries included, in seconds since the request's arrival."""

    stage: str
    start_seconds: float
    image_index: int | None = None
    """None for a call that serves all images of the request."""
    preview: bool = False
    duration_seconds: float = 0.0
    transfer_bytes: int = 0
    retries: int = 0
    timing: stage_pb2.Timing = field(default_factory=stage_pb2.Timing)
    """The stage's own measurement."""

    @property
    def end_seconds(self) -> float:
        """The end of the call."""
        return self.start_seconds + self.duration_seconds

    def to_proto(self, *, critical: bool) -> images_pb2.StageCall:
        """The record as a hart.v1 message."""
        timing = self.timing
        return images_pb2.StageCall(
            stage=self.stage,
            image_index=self.image_index,
            preview=self.preview,
            start_seconds=self.start_seconds,
            duration_seconds=self.duration_seconds,
            queue_seconds=timing.queue_seconds,
            compute_seconds=timing.compute_seconds,
            batch_size=timing.batch_size,
            transfer_bytes=self.transfer_bytes,
            retries=self.retries,
            critical=critical,
            cached=timing.cached,
            scales=timing.scales,
        )


class RequestTimings:
    """The calls of one request since its arrival."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._calls: list[CallRecord] = []
        self._open: list[CallRecord] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the request arrived."""
        return self._clock() - self._began

    @property
    def current(self) -> str:
        """The stage of the latest call still open; "" without one."""
        return self._open[-1].stage if self._open else ""

    @contextmanager
    def call(self, stage: str, image_index: int | None = None, *, preview: bool = False) -> Iterator[CallRecord]:
        """A record around one call to a stage, retries included. The block fills in what the stage returns."""
        record = CallRecord(stage, self.elapsed, image_index, preview)
        self._calls.append(record)
        self._open.append(record)
        try:
            yield record
        finally:
            record.duration_seconds = self.elapsed - record.start_seconds
            self._open.remove(record)

    def report(self, critical: Iterable[CallRecord]) -> images_pb2.Timings:
        """All calls. Queue and compute seconds over the `critical` ones plus the gateway's share are the wall time."""
        chosen = set(critical)
        stages = sum(record.timing.queue_seconds + record.timing.compute_seconds for record in chosen)
        wall = self.elapsed
        calls = [record.to_proto(critical=record in chosen) for record in self._calls]
        return images_pb2.Timings(wall_seconds=wall, gateway_seconds=wall - stages, calls=calls)
