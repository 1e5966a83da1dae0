"""Compare simulated with measured times on a real cluster whose engines sleep; exit code 1 above the bound."""

from __future__ import annotations

import argparse

from planner.commands import arguments as shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    shared.add_profile(parser)
    parser.set_defaults(profile="sleeping", stretch=4.0)
    parser.add_argument("--loads", type=float, nargs="+", default=[0.5, 0.7, 0.85], help="shares of the capacity")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1000, help="per load and seed (default: 1000)")
    parser.add_argument("--bound", type=float, default=0.15, help="max relative error (default: 0.15)")


def run(arguments: argparse.Namespace) -> int:
    """Run the command. Raises PlanError."""
    from planner.validation import compare  # here: it needs gRPC and the other rooms' processes

    print(compare.HEADER, flush=True)
    profile, worst = shared.profile_of(arguments), 0.0
    trial = compare.Trial(arguments.loads, arguments.seeds, arguments.requests)
    for row in compare.compare(profile, trial, lambda line: print(line, flush=True)):
        print(row, flush=True)
        worst = max(worst, *map(abs, row.errors))
    print(f"max error {worst:.1%}, bound {arguments.bound:.0%}")
    return int(not worst <= arguments.bound)
