"""Estimates the duration of work from recent measurements."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Sample:
    at: float
    cost: float
    seconds: float


class Estimator:
    """Seconds by cost, from recent measurements.

    Samples are kept in half-octave buckets of their cost, at most `window` per bucket, and expire after `memory`
    seconds. Without expiry, one slow period in which all work was refused would refuse work for ever.
    """

    def __init__(self, *, window: int = 16, memory: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._memory = memory
        self._clock = clock
        self._samples: dict[int, deque[_Sample]] = {}

    def observe(self, cost: float, seconds: float) -> None:
        """Record that work of `cost` took `seconds` of compute."""
        if cost > 0 and seconds >= 0:
            bucket = self._samples.setdefault(_bucket(cost), deque(maxlen=self._window))
            bucket.append(_Sample(self._clock(), cost, seconds))

    def _fresh(self, bucket: int) -> list[_Sample]:
        horizon = self._clock() - self._memory
        return [s for s in self._samples.get(bucket, ()) if s.at >= horizon]

    def _nearest(self, cost: float) -> list[_Sample]:
        own = _bucket(cost)
        for bucket in sorted(self._samples, key=lambda b: (abs(b - own), b)):
            samples = self._fresh(bucket)
            if samples:
                return samples
        return []

    def fastest(self, cost: float) -> float:
        """A lower bound of the seconds that work of `cost` takes; 0 without measurements. It does not extrapolate to
        costs above the measured ones: work is refused only if it certainly cannot finish."""
        return min((s.seconds * min(1.0, cost / s.cost) for s in self._nearest(cost)), default=0.0)

    def typical(self, cost: float) -> float:
        """Mean seconds of work of `cost` in one batch, scaled from the nearest measured cost; 0 without
        measurements."""
        samples = self._nearest(cost)
        if not samples:
            return 0.0
        return sum(s.seconds * max(1.0, cost / s.cost) for s in samples) / len(samples)

    def throughput(self) -> float:
        """The max mean cost per second over the recent batch sizes; infinity without measurements."""
        best = 0.0
        for bucket in self._samples:
            samples = self._fresh(bucket)
            seconds = sum(s.seconds for s in samples)
            if seconds > 0:
                best = max(best, sum(s.cost for s in samples) / seconds)
        return best or math.inf

    def table(self) -> dict[int, float]:
        """Mean seconds by rounded cost."""
        result = {}
        for bucket in sorted(self._samples):
            samples = list(self._samples[bucket])
            cost = round(sum(s.cost for s in samples) / len(samples))
            result[max(1, cost)] = sum(s.seconds for s in samples) / len(samples)
        return result


def _bucket(cost: float) -> int:
    return math.ceil(math.log2(cost) * 2)  # half-octaves, so that batches of 3 and 4 differ
