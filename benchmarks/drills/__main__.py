"""`python -m benchmarks.drills NAME... --minutes M`: run drills; exit code 1 if an invariant is broken.

python -m benchmarks.drills kill --minutes 10
python -m benchmarks.drills all --minutes 1
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import random
import sys
from collections.abc import Awaitable, Callable

from benchmarks.drills import (
    balance,
    cancel,
    checkpoint,
    deadlines,
    from_zero,
    kill,
    overload,
    repeats,
    scale,
    shutdown,
    soak,
    triton,
)
from benchmarks.drills.cases import References
from benchmarks.drills.harness import SETTINGS, Harness, opened
from benchmarks.drills.report import Report
from benchmarks.harness.cli import run_command, workplace
from benchmarks.harness.processes import STAGES, Cluster, running_cluster
from training.core.options import count, positive

Drill = Callable[[Harness, float, Report], Awaitable[None]]
DRILLS: dict[str, Drill] = {
    "kill": kill.kill,
    "hang": kill.hang,
    "slow": kill.slow,
    "cut": kill.cut_connections,
    "cancel": cancel.cancel,
    "overload": overload.overload,
    "slow-decoder": overload.slow_decoder,
    "deadlines": deadlines.deadlines,
    "safety-down": shutdown.safety_down,
    "rolling": shutdown.rolling,
    "scale": scale.scale,
    "from-zero": from_zero.from_zero,
    "gateway-ends": shutdown.gateway_ends,
    "repeats": repeats.repeats,
    "soak": soak.soak,
    "balance": balance.balance,
    "triton": triton.triton,
}


async def drilled(cluster: Cluster, names: list[str], seconds: float, seed: int) -> list[Report]:
    """Run these drills one after the other and return their reports."""
    references, reports = References(), []
    for name in names:
        random.seed(seed)
        report = Report(name)
        print(f"{name}: {inspect.getdoc(DRILLS[name])}", flush=True)
        async with opened(cluster, references) as harness:
            await DRILLS[name](harness, seconds, report)
        report.end()
        reports.append(report)
    return reports


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drills",
        description="Inject faults into a cluster under load and check its invariants; exit code 1 if one is broken.",
    )
    parser.add_argument("names", nargs="+", choices=[*DRILLS, "all"], metavar="NAME", help=", ".join([*DRILLS, "all"]))
    parser.add_argument("--minutes", type=positive, default=1.0, help="how long each drill's load lasts (default 1)")
    parser.add_argument("--replicas", type=count, help="of each stage (default 2; of the generator 3 for balance)")
    parser.add_argument("--seed", type=int, default=0, help="of the load and of the faults (default 0)")
    given = parser.parse_args()
    names = list(DRILLS) if "all" in given.names else given.names
    replicas = dict.fromkeys(STAGES, given.replicas or 2)
    if "balance" in names:
        replicas["ar_generator"] = max(3, replicas["ar_generator"])
    with workplace() as folder:
        model = checkpoint.build(folder)
        with running_cluster(folder, model, replicas, SETTINGS) as cluster:
            reports = asyncio.run(drilled(cluster, names, 60 * given.minutes, given.seed))
    broken = [report.name for report in reports if not report.held]
    print(f"{len(reports)} drills, broken: {', '.join(broken) or 'none'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
