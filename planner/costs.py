"""What a batch costs: seconds by its size."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping
from dataclasses import dataclass

from planner.errors import PlanError


@dataclass(frozen=True)
class BatchCost:
    """Measured (size, seconds) points, ascending by size."""

    points: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, table: Mapping[str, float] | Mapping[int, float], name: str) -> BatchCost:
        """From a table as Describe sends it. Raises PlanError that names the field `name`."""
        points = tuple(sorted((float(size), float(seconds)) for size, seconds in table.items()))
        if not points:
            raise PlanError(f"{name}: expected at least one batch size, found none")
        for size, seconds in points:
            if not (size > 0 and seconds >= 0 and math.isfinite(seconds)):
                raise PlanError(f"{name}[{size:g}]: expected seconds of 0 or more, not {seconds}")
        return cls(points)

    def seconds(self, size: float) -> float:
        """Seconds of a batch of this size: linear between measured sizes; below the first size its seconds; above the
        last one the mean seconds per item of the last size."""
        sizes = [point[0] for point in self.points]
        at = bisect.bisect_left(sizes, size)
        if at == 0:
            return self.points[0][1]
        if at == len(sizes):
            last, seconds = self.points[-1]
            return seconds * size / last
        (low, a), (high, b) = self.points[at - 1], self.points[at]
        return a + (b - a) * (size - low) / (high - low)

    def stretched(self, factor: float) -> BatchCost:
        """Every time multiplied by `factor`."""
        return BatchCost(tuple((size, seconds * factor) for size, seconds in self.points))

    def table(self) -> dict[str, float]:
        """Seconds by size, for JSON."""
        return {f"{size:g}": seconds for size, seconds in self.points}
