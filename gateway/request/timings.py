"""Where a request's time went. Knows calls and clocks, no stage's meaning."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from hart.v1 import images_pb2, stage_pb2


class RequestTimings:
    """The calls of one request, from its arrival on."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._calls: list[images_pb2.StageCall] = []
        self._open: list[images_pb2.StageCall] = []

    @property
    def elapsed(self) -> float:
        """Seconds since the arrival."""
        return self._clock() - self._began

    @property
    def current(self) -> str:
        """The stage that was called last and has not answered; "" where none is asked."""
        return self._open[-1].stage if self._open else ""

    @contextmanager
    def call(
        self, stage: str, image_index: int | None = None, *, preview: bool = False
    ) -> Iterator[images_pb2.StageCall]:
        """A line of the sheet around one call to a stage, retries included. The block fills in the stage's account."""
        entry = images_pb2.StageCall(stage=stage, image_index=image_index, preview=preview, start_seconds=self.elapsed)
        self._calls.append(entry)
        self._open.append(entry)
        try:
            yield entry
        finally:
            entry.duration_seconds = self.elapsed - entry.start_seconds
            self._open = [other for other in self._open if other is not entry]

    def report(self, critical: Iterable[images_pb2.StageCall]) -> images_pb2.Timings:
        """The whole account. Over the `critical` calls queue and compute, with the gateway's own, make up the wall."""
        stages = 0.0
        for entry in critical:
            entry.critical = True
            stages += entry.queue_seconds + entry.compute_seconds
        wall = self.elapsed
        return images_pb2.Timings(wall_seconds=wall, gateway_seconds=wall - stages, calls=self._calls)


def record(entry: images_pb2.StageCall, timing: stage_pb2.Timing) -> None:
    """Write a stage's own account of a call into the sheet's line."""
    entry.queue_seconds = timing.queue_seconds
    entry.compute_seconds = timing.compute_seconds
    entry.batch_size = timing.batch_size
    entry.cached = timing.cached
    del entry.scales[:]
    entry.scales.extend(timing.scales)
