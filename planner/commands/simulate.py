"""Simulate a workload on a fleet and print its figures."""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from planner import workload
from planner.commands import arguments as shared
from planner.errors import PlanError
from planner.fleet import Autoscaling
from planner.simulation import cluster
from planner.simulation.generating import WholeRequestReplica
from planner.simulation.pool import KINDS
from planner.summary import Summary
from planner.workload import Arrival


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    shared.add_profile(parser)
    shared.add_mix(parser)
    shared.add_fleet(parser)
    parser.add_argument("--replicas", nargs="+", default=[], metavar="STAGE=N")
    parser.add_argument("--rate", type=float, help="requests per second; with --daily and --burst the lowest rate")
    parser.add_argument("--seconds", type=float, default=300.0, help="of arrivals (default: 300)")
    parser.add_argument("--warm-up", type=float, default=0.0, metavar="SECONDS", help="left out of the figures")
    parser.add_argument("--daily", type=float, metavar="PEAK", help="a daily curve from --rate to PEAK in --seconds")
    parser.add_argument("--burst", metavar="PEAK@FROM:TO", help="requests per second between two moments")
    parser.add_argument("--trace", type=Path, help="the gateway's audit log instead of --rate")
    parser.add_argument("--speed", type=float, default=1.0, help="of the trace (default: 1)")
    parser.add_argument("--cached", type=float, default=0.0, help="share of prompts in the text encoder's cache")
    parser.add_argument("--autoscale", nargs="+", default=[], metavar="STAGE=MIN:MAX")
    parser.add_argument("--target-load", type=float, default=Autoscaling().target_load)
    parser.add_argument(
        "--provision", type=float, default=10.0, metavar="SECONDS", help="before a pod's process starts"
    )
    parser.add_argument("--lose", nargs="+", default=[], metavar="STAGE=N@SECONDS")
    parser.add_argument("--whole-requests", action="store_true", help="a generator that batches whole images")
    parser.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Raises PlanError."""
    profile = shared.profile_of(arguments)
    policy = Autoscaling(target_load=arguments.target_load, provision_seconds=arguments.provision)
    fleet = shared.fleet_of(
        arguments,
        arguments.replicas,
        autoscaling=shared.autoscaling_of(arguments.autoscale, policy),
        losses=shared.losses_of(arguments.lose),
        provision_seconds=arguments.provision,
    )
    kinds = {**KINDS, "ar_generator": WholeRequestReplica} if arguments.whole_requests else KINDS
    options = cluster.Options(arguments.seed, arguments.cached, kinds)
    result = cluster.simulate(profile, fleet, arrivals_of(arguments), options)
    summary = Summary.of(result, arguments.price, arguments.warm_up)
    print(json.dumps(asdict(summary), indent=2) if arguments.json else "\n".join(summary.lines()))
    return 0


def arrivals_of(arguments: argparse.Namespace) -> Iterable[Arrival]:
    """The chosen workload. Raises PlanError."""
    if arguments.trace:
        return workload.trace(arguments.trace, arguments.speed, arguments.deadline)
    if arguments.rate is None:
        raise PlanError("--rate: expected requests per second (or --trace)")
    mix, source = shared.mix_of(arguments), random.Random(arguments.seed)
    if arguments.daily is not None:
        return workload.daily(arguments.rate, arguments.daily, arguments.seconds, mix, source)
    if arguments.burst:
        peak, window = _burst(arguments.burst)
        return workload.burst(arguments.rate, peak, window, arguments.seconds, mix, source)
    return workload.constant(arguments.rate, arguments.seconds, mix, source)


def _burst(text: str) -> tuple[float, tuple[float, float]]:
    try:
        peak, window = text.split("@")
        begin, end = window.split(":")
        return float(peak), (float(begin), float(end))
    except ValueError:
        raise PlanError(f"--burst {text}: expected PEAK@FROM:TO") from None
