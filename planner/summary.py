"""What a run says: percentiles, refusals, busy shares, devices, cost."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from planner.simulation.cluster import Run, Usage


def percentile(values: Iterable[float], share: float) -> float:
    """Nearest rank: the smallest value that at least `share` of all values do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


@dataclass(frozen=True)
class Summary:
    """The figures of one run."""

    requests: int
    images: int
    """Of requests that succeeded."""
    images_per_second: float
    """Between warm-up and the last arrival."""
    p50: float
    """Seconds of the requests that succeeded."""
    p95: float
    p99: float
    refused: Mapping[str, float]
    """The share of requests by `stage: reason`."""
    usage: Mapping[str, Usage]
    gateway_busy: float
    devices: float
    """Mean devices over the run."""
    cost_per_1000: float
    """In the currency of the price."""

    @property
    def refused_share(self) -> float:
        """The share of requests without images."""
        return sum(self.refused.values())

    @classmethod
    def of(cls, run: Run, price: float = 0.0, warm_up: float = 0.0) -> Summary:
        """The figures of the requests that arrived after `warm_up` seconds. `price`: of one device for an hour."""
        counted = [one for one in run.outcomes if one.arrived >= warm_up]
        good = [one for one in counted if one.failure is None]
        failed = Counter(f"{one.failure.stage}: {one.failure.reason}" for one in counted if one.failure)
        images, seconds = sum(one.images for one in good), max(1e-9, run.seconds - warm_up)
        ended = [one for one in run.outcomes if warm_up <= one.arrived + one.seconds <= run.seconds]
        drawn = sum(one.images for one in ended if one.failure is None)
        devices = sum(one.device_seconds for one in run.usage.values()) / max(1e-9, run.seconds)
        times = [one.seconds for one in good]
        return cls(
            requests=len(counted),
            images=images,
            images_per_second=drawn / seconds,
            p50=percentile(times, 0.5),
            p95=percentile(times, 0.95),
            p99=percentile(times, 0.99),
            refused={name: count / len(counted) for name, count in sorted(failed.items())},
            usage=run.usage,
            gateway_busy=run.gateway_busy,
            devices=devices,
            cost_per_1000=1000 * devices * price * seconds / 3600 / drawn if drawn else math.inf,
        )

    def lines(self) -> Iterator[str]:
        """The figures as text."""
        yield f"requests          {self.requests}, {self.images} images, {self.images_per_second:.4g} images/s"
        yield f"seconds           p50 {self.p50:.3f}, p95 {self.p95:.3f}, p99 {self.p99:.3f}"
        yield f"refused           {self.refused_share:.2%}" + "".join(
            f"; {name} {share:.2%}" for name, share in self.refused.items()
        )
        for name, used in self.usage.items():
            yield f"{name:17} max {used.max_replicas} replicas, busy {used.busy:.0%}"
        yield f"gateway           busy {self.gateway_busy:.0%} of a thread"
        yield f"devices           {self.devices:.4g} on average"
        yield f"cost              {self.cost_per_1000:.4g} per 1,000 images"
