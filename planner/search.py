"""The smallest numbers of replicas that meet a target."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from common.stages import STAGES
from planner.errors import PlanError
from planner.fleet import Fleet
from planner.profile import Profile
from planner.simulation.cluster import simulate
from planner.summary import Summary
from planner.workload import Arrival, Mix, constant

MIN_REQUESTS = 600
"""Of a trial run after its warm-up."""
GATEWAY_BUSY = 0.6
"""Max share of a gateway's thread: above it the calls of one request delay those of another."""
MAX_TRIALS = 60


@dataclass(frozen=True)
class Target:
    """What a plan must meet."""

    rate: float
    """Requests per second."""
    p95: float
    """Seconds."""
    refused: float = 0.001
    """Max share of requests without images."""
    spare: int = 0
    """Replicas of each stage that may be lost while the target is still met."""


@dataclass(frozen=True)
class Plan:
    """A fleet that meets the target, without its spare replicas in the figures."""

    fleet: Fleet
    summary: Summary
    trials: int


def minimum(profile: Profile, rate: float, mix: Mix) -> dict[str, int]:
    """Replicas below which a stage certainly cannot follow: its compute at the best batch, all the time."""
    images, decoder = rate * mix.mean_images, profile.stages["decoder"]
    generator = profile.stages["ar_generator"]
    widths = zip(generator.scales, generator.max_batch_per_scale, strict=True)
    per_image = sum(min(cost.seconds(n) / n for n in (1, width)) for cost, width in widths)
    needed = {
        "safety": rate * _best(profile, "safety"),
        "text_encoder": rate * _best(profile, "text_encoder"),
        "ar_generator": images * per_image,
        "decoder": images
        * max(_best(profile, "decoder"), decoder.encode_seconds.get(mix.format, 0.0) / decoder.encode_threads),
    }
    return {stage: max(1, math.ceil(seconds)) for stage, seconds in needed.items()}


def _best(profile: Profile, stage: str) -> float:
    found = profile.stages[stage]
    return min(found.batch.seconds(n) / n for n in (1, found.max_batch))


class Search:
    """Simulates fleets of growing size. `simulate_one` runs one trial."""

    def __init__(self, profile: Profile, fleet: Fleet, mix: Mix, target: Target, seed: int = 0) -> None:
        self._profile, self._fleet, self._mix, self._target = profile, fleet, mix, target
        self._arrivals = self._requests(seed)
        self._known: dict[tuple[int, ...], Summary] = {}

    def _requests(self, seed: int) -> list[Arrival]:
        """A fifth is warm-up. Long enough for queues to grow if a stage cannot follow."""
        count = max(MIN_REQUESTS, int(self._target.rate * 20 * self._target.p95)) * 5 // 4
        endless = constant(self._target.rate, math.inf, self._mix, random.Random(seed))
        return list(itertools.islice(endless, count))

    def plan(self, say: Callable[[str], None] = lambda line: None) -> Plan:
        """Grow the stage that helps most until the target is met, then shrink each stage. Raises PlanError."""
        alone = sum(self._profile.stages[s].alone() for s in ("text_encoder", "ar_generator", "decoder"))
        if alone > self._target.p95:
            raise PlanError(f"p95 {self._target.p95:g} s: one image alone takes {alone:.3g} s on {self._profile.name}")
        counts = minimum(self._profile, self._target.rate, self._mix)
        while not self._met(summary := self.summary(counts)):
            if len(self._known) >= MAX_TRIALS:
                raise PlanError(f"no plan after {MAX_TRIALS} trials; the last one has p95 {summary.p95:.3g} s")
            say(f"{_shown(counts)}: p95 {summary.p95:.3f} s, refused {summary.refused_share:.2%}")
            counts = self._grown(counts)
        counts = self._shrunk(counts)
        spare = {stage: count + self._target.spare for stage, count in counts.items()}
        return Plan(self._of(spare), self.summary(counts), len(self._known))

    def _grown(self, counts: Mapping[str, int]) -> dict[str, int]:
        """One step more of the busiest stage: a twentieth of its replicas, at least one."""
        usage = self.summary(counts).usage
        stage = max(counts, key=lambda name: usage[name].busy)
        return {**counts, stage: counts[stage] + max(1, counts[stage] // 20)}

    def _shrunk(self, counts: dict[str, int]) -> dict[str, int]:
        """Without replicas that the target does not need, those of the most devices first."""
        floor = minimum(self._profile, self._target.rate, self._mix)
        for stage in sorted(counts, key=lambda name: -self._profile.stages[name].devices):
            while counts[stage] > floor[stage]:
                fewer = {**counts, stage: counts[stage] - 1}
                if not self._met(self.summary(fewer)):
                    break
                counts = fewer
        return counts

    def _met(self, summary: Summary) -> bool:
        return summary.p95 <= self._target.p95 and summary.refused_share <= self._target.refused

    def summary(self, counts: Mapping[str, int]) -> Summary:
        """The figures of a fleet with these replicas."""
        key = tuple(counts[stage] for stage in STAGES)
        if key not in self._known:
            warm_up = self._arrivals[len(self._arrivals) // 5].at
            self._known[key] = Summary.of(simulate(self._profile, self._of(counts), self._arrivals), warm_up=warm_up)
        return self._known[key]

    def _of(self, counts: Mapping[str, int]) -> Fleet:
        cpu = self._target.rate * self._profile.gateway_cpu_seconds
        in_progress = self._target.rate * self._target.p95
        by_limit = math.ceil(in_progress / (0.5 * self._fleet.limits.max_ongoing_requests))
        gateways = max(self._fleet.gateways, math.ceil(cpu / GATEWAY_BUSY), by_limit)
        return replace(self._fleet, replicas=dict(counts), gateways=gateways)


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{stage} {count}" for stage, count in counts.items())


def with_price(summary: Summary, price: float) -> Summary:
    """The summary with the cost at this price of one device for an hour."""
    if not summary.images_per_second:
        return summary
    return replace(summary, cost_per_1000=1000 * summary.devices * price / 3600 / summary.images_per_second)


def gigabits(profile: Profile, summary: Summary) -> float:
    """Gbit/s between all gateways and stages, both directions together, without previews."""
    stages = profile.stages
    per_request = stages["safety"].transfer_bytes + stages["text_encoder"].transfer_bytes
    per_image = stages["ar_generator"].transfer_bytes + stages["decoder"].transfer_bytes
    requests = summary.images_per_second * summary.requests / max(1, summary.images)
    return (requests * per_request + summary.images_per_second * per_image) * 8e-9


def lines(plan: Plan, profile: Profile, price: float) -> Iterator[str]:
    """The plan as text."""
    counts = {stage: plan.fleet.count(stage) for stage in STAGES}
    devices = sum(profile.stages[stage].devices * count for stage, count in counts.items())
    yield f"replicas          {_shown(counts)}; gateways {plan.fleet.gateways}"
    yield f"devices           {devices:g} (spare replicas included)"
    yield f"network           {gigabits(profile, plan.summary):.3g} Gbit/s between gateways and stages"
    yield from with_price(plan.summary, price).lines()
