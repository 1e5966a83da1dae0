"""What a replica has measured of its own work. A simulated engine takes exactly the profile's seconds, so minima are
the profile's; throughput depends on the batches that occurred, and comes from the product's estimator."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate

from planner.profile import StageProfile
from runtime.work.estimator import Estimator

FRESH_SECONDS = 0.1
"""How long a throughput is used before it is computed again: a simplification that saves most of a run's time."""


class Estimates:
    """Seconds by cost, in simulated time."""

    def __init__(self, profile: StageProfile, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._estimator = Estimator(clock=clock)
        self._alone, self._preview = profile.alone(), profile.preview_seconds
        steps = [one.seconds(1) for one in profile.scales]
        self._remaining = [*reversed(list(accumulate(reversed(steps)))), 0.0]
        self._throughput, self._until = math.inf, -math.inf
        self.observe(1.0, self._alone)  # the warm-up

    def observe(self, cost: float, seconds: float) -> None:
        """Record that work of `cost` took `seconds` of compute."""
        self._estimator.observe(cost, seconds)

    def fastest(self, cost: float) -> float:
        """A lower bound of the seconds of work of this cost."""
        return self._alone if cost >= 1 else min(self._alone, self._preview)

    def remaining(self, scale: int) -> float:
        """A lower bound of the seconds that an image takes from this scale on."""
        return self._remaining[scale]

    def throughput(self) -> float:
        """The max mean cost per second over the recent batch sizes."""
        now = self._clock()
        if now >= self._until:
            self._throughput, self._until = self._estimator.throughput(), now + FRESH_SECONDS
        return self._throughput
