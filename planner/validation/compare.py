"""Simulated against measured times, by load and seed."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.harness.processes import Cluster
from planner.capacity import images_per_second
from planner.fleet import Fleet
from planner.overheads import measure
from planner.profile import Profile
from planner.simulation.cluster import Options, simulate
from planner.simulation.request import Outcome
from planner.summary import percentile
from planner.validation.cluster import cpu_seconds, sleeping_cluster
from planner.validation.load import send
from planner.workload import Arrival, Mix, constant

MIX = Mix(images=((1, 0.8), (2, 0.2)), preview_share=0.2, preview_every=2)
FLEET = Fleet(replicas={"safety": 1, "text_encoder": 1, "ar_generator": 6, "decoder": 2})
REPEATS = 5
"""Simulations of each row: their median is compared, so that its own choice among equal replicas does not matter."""


@dataclass(frozen=True)
class Row:
    """One load with one seed."""

    load: float
    """Share of the capacity."""
    rate: float
    """Requests per second."""
    seed: int
    requests: int
    failed: int
    real: tuple[float, float]
    """Median and p95, seconds."""
    simulated: tuple[float, float]
    delay: float
    """Seconds: the p99 delay of a wake-up in this process, which shares its cores with the cluster."""

    @property
    def errors(self) -> tuple[float, float]:
        """Simulated over real, minus 1: of the median and of p95."""
        return self.simulated[0] / self.real[0] - 1, self.simulated[1] / self.real[1] - 1

    def __str__(self) -> str:
        median, p95 = self.errors
        return (
            f"| {self.load:.0%} | {self.rate:.2f} | {self.seed} | {self.requests} | {self.failed} "
            f"| {self.real[0]:.3f} | {self.simulated[0]:.3f} | {median:+.1%} "
            f"| {self.real[1]:.3f} | {self.simulated[1]:.3f} | {p95:+.1%} | {self.delay * 1000:.0f} ms |"
        )


HEADER = (
    "| load | requests/s | seed | requests | failed | median, real | simulated | error "
    "| p95, real | simulated | error | delay |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def calibrated(profile: Profile, cluster: Cluster, requests: int) -> Profile:
    """The profile with the overheads of this cluster while it is idle: `requests` one after another."""
    before = cpu_seconds(cluster.gateway)
    found = measure(cluster.endpoint, requests)
    cpu = (cpu_seconds(cluster.gateway) - before) / (requests + 1)
    # The thread's time is part of the measured overhead; the simulation adds it itself.
    found.gateway = [max(0.0, seconds - cpu) for seconds in found.gateway]
    return replace(found.applied(profile), gateway_cpu_seconds=cpu)


def requests_of(rate: float, count: int, seed: int) -> list[Arrival]:
    """The first `count` requests of a Poisson process."""
    return list(itertools.islice(constant(rate, float("inf"), MIX, random.Random(seed)), count))


def quantiles_of(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """Median and p95 of the requests that succeeded."""
    times = [one.seconds for one in outcomes if one.failure is None]
    return percentile(times, 0.5), percentile(times, 0.95)


def simulated(profile: Profile, fleet: Fleet, arrivals: Sequence[Arrival]) -> tuple[float, float]:
    """Median over REPEATS simulations of the median and of p95."""
    runs = [quantiles_of(simulate(profile, fleet, arrivals, Options(seed=seed)).outcomes) for seed in range(REPEATS)]
    return percentile((run[0] for run in runs), 0.5), percentile((run[1] for run in runs), 0.5)


@dataclass(frozen=True)
class Trial:
    """What is sent to which fleet."""

    loads: Sequence[float]
    """Shares of the capacity."""
    seeds: int
    count: int
    """Requests of each load and seed."""
    fleet: Fleet = FLEET


def compare(profile: Profile, trial: Trial, say: Callable[[str], None] = print) -> Iterator[Row]:
    """One row per load and seed, by a cluster that is started for it."""
    say("starting the cluster")
    with sleeping_cluster(profile, trial.fleet) as cluster:
        yield from compare_with(cluster, profile, trial, say)


def compare_with(cluster: Cluster, profile: Profile, trial: Trial, say: Callable[[str], None] = print) -> Iterator[Row]:
    """One row per load and seed. The cluster's engines sleep the profile's seconds, and nothing else uses it."""
    capacity = images_per_second(profile, trial.fleet, MIX) / MIX.mean_images
    measured = calibrated(profile, cluster, min(60, trial.count))
    say(f"capacity, simulated: {capacity:.2f} requests/s; overheads, measured while idle: gateway "
        f"{percentile(measured.gateway_seconds, 0.5) * 1000:.1f} ms and {measured.gateway_cpu_seconds * 1000:.1f} ms "
        "of its thread; per call " + ", ".join(
        f"{name} {percentile(stage.call_seconds, 0.5) * 1000:.1f} ms" for name, stage in measured.stages.items()
    ))  # fmt: skip
    for seed, load in itertools.product(range(1, trial.seeds + 1), trial.loads):
        arrivals = requests_of(load * capacity, trial.count, seed)
        delays: list[float] = []
        outcomes = asyncio.run(send(cluster.endpoint, arrivals, delays))
        failed = sum(one.failure is not None for one in outcomes)
        times, expected = quantiles_of(outcomes), simulated(measured, trial.fleet, arrivals)
        yield Row(load, load * capacity, seed, trial.count, failed, times, expected, percentile(delays, 0.99))
