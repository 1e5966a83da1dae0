"""Find the smallest numbers of replicas for a rate and a p95, and write the chart's values."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from planner import search, values_file
from planner.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    shared.add_profile(parser)
    shared.add_mix(parser)
    shared.add_fleet(parser)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--p95", type=float, required=True, metavar="SECONDS")
    parser.add_argument("--refused", type=float, default=0.001, metavar="SHARE", help="max (default: 0.001)")
    parser.add_argument("--spare", type=int, default=0, help="replicas per stage that may be lost (default: 0)")
    parser.add_argument("--values", type=Path, help="write values.yaml for the chart to this file")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Raises PlanError."""
    profile = shared.profile_of(arguments)
    target = search.Target(arguments.rate, arguments.p95, arguments.refused, arguments.spare)
    searching = search.Search(profile, shared.fleet_of(arguments), shared.mix_of(arguments), target, arguments.seed)
    found = searching.plan(lambda line: print(line, file=sys.stderr, flush=True))
    print("\n".join(search.lines(found, profile, arguments.price)))
    if arguments.values:
        title = f"{arguments.rate:g} requests/s with p95 {arguments.p95:g} s on {profile.name} (python -m planner plan)"
        arguments.values.write_text(values_file.text(profile, found.fleet, title))
    return 0
