"""How long work takes, from what was measured lately. Knows costs and seconds alone."""

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
    """Seconds by cost, over the last measurements only.

    Samples are kept by power-of-two of their cost and forgotten after `memory` seconds: one slow outlier, or a slow
    spell in which everything was refused, must not shut the door for good.
    """

    def __init__(self, *, window: int = 16, memory: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._memory = memory
        self._clock = clock
        self._samples: dict[int, deque[_Sample]] = {}

    def observe(self, cost: float, seconds: float) -> None:
        """Note that work of `cost` took `seconds` of compute."""
        if cost > 0 and seconds >= 0:
            bucket = self._samples.setdefault(_bucket(cost), deque(maxlen=self._window))
            bucket.append(_Sample(self._clock(), cost, seconds))

    def _fresh(self, bucket: int) -> list[_Sample]:
        horizon = self._clock() - self._memory
        return [s for s in self._samples.get(bucket, ()) if s.at >= horizon]

    def _nearest(self, cost: float) -> list[_Sample]:
        wanted = _bucket(cost)
        for bucket in sorted(self._samples, key=lambda b: (abs(b - wanted), b)):
            samples = self._fresh(bucket)
            if samples:
                return samples
        return []

    def fastest(self, cost: float) -> float:
        """The least that work of `cost` can be expected to take; 0 where nothing is known. For larger costs than were
        seen it does not extrapolate: a claim that work cannot finish must hold."""
        return min((s.seconds * min(1.0, cost / s.cost) for s in self._nearest(cost)), default=0.0)

    def typical(self, cost: float) -> float:
        """The mean time of work of `cost` in one batch, scaled from the nearest cost that was seen; 0 if none was."""
        samples = self._nearest(cost)
        if not samples:
            return 0.0
        return sum(s.seconds * max(1.0, cost / s.cost) for s in samples) / len(samples)

    def throughput(self) -> float:
        """The best mean cost per second over the batch sizes seen lately; infinity where nothing is known."""
        best = 0.0
        for bucket in self._samples:
            samples = self._fresh(bucket)
            seconds = sum(s.seconds for s in samples)
            if seconds > 0:
                best = max(best, sum(s.cost for s in samples) / seconds)
        return best or math.inf

    def table(self) -> dict[int, float]:
        """Mean seconds by (rounded) cost, for descriptions."""
        result = {}
        for bucket in sorted(self._samples):
            samples = list(self._samples[bucket])
            cost = round(sum(s.cost for s in samples) / len(samples))
            result[max(1, cost)] = sum(s.seconds for s in samples) / len(samples)
        return result


def _bucket(cost: float) -> int:
    return math.ceil(math.log2(cost) * 2)  # half-octaves: batches of 3 and 4 are told apart
