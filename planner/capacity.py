"""The max throughput of a fleet."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

from planner.fleet import Fleet, GatewayLimits
from planner.profile import Profile
from planner.simulation.cluster import simulate
from planner.workload import Mix, constant


def images_per_second(profile: Profile, fleet: Fleet, mix: Mix, requests: int = 600) -> float:
    """Images per second while more requests wait than the fleet can take: a simulation without limits or deadlines."""
    patient = replace(mix, deadline=1e9)
    limits = GatewayLimits(max_ongoing_requests=10**9)
    open_doors = profile
    for stage in profile.stages:
        open_doors = open_doors.with_stage(stage, queue_limit=10**9)
    arrivals = list(itertools.islice(constant(1e6, 1e9, patient, random.Random(0)), requests))
    run = simulate(open_doors, replace(fleet, limits=limits, autoscaling={}, losses=()), arrivals)
    ends = sorted(one.arrived + one.seconds for one in run.outcomes for _ in range(one.images))
    first, last = len(ends) // 5, len(ends) * 4 // 5  # without the start, when queues fill, and the end
    return (last - first) / (ends[last] - ends[first])
