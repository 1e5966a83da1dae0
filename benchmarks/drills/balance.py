"""Least outstanding cost against round robin, over three generators of which one is slow, in one run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hart.aio import AsyncClient

from benchmarks.drills import chaos
from benchmarks.drills.harness import Harness
from benchmarks.drills.load import RequestResult, any_of, capacity
from benchmarks.drills.report import Report
from benchmarks.harness.load import open_loop, percentile
from benchmarks.harness.processes import Process
from gateway.assembly import build
from gateway.config import GatewaySettings
from runtime.calls.replica import Replica
from runtime.server.process import run

SLOW = 0.1
SHARE = 0.6
TURNS = 6


@dataclass
class RoundRobinGateway(Process):
    """A gateway that chooses replicas in turn."""

    @property
    def module(self) -> str:
        """This one, run as a program."""
        return "benchmarks.drills.balance"


async def balance(harness: Harness, seconds: float, report: Report) -> None:
    """The same load through either gateway by turns; one generator runs a tenth of the time."""
    single = [case for case in harness.cases if case.num_images == 1 and not case.preview_every]
    generators = harness.replicas("ar_generator")
    other = RoundRobinGateway("gateway", harness.cluster.folder, harness.cluster.where()).start()
    try:
        other.await_ready(60)
        async with AsyncClient(other.address) as in_turn, chaos.slowed(generators[0], SLOW):
            rate = SHARE * await capacity(harness.client, single, harness.references, 2 * len(generators), seconds / 8)
            found: dict[str, list[RequestResult]] = {"least outstanding": [], "round robin": []}
            for turn in range(TURNS):
                name = ("least outstanding", "round robin")[turn % 2]
                client = (harness.client, in_turn)[turn % 2]
                send = any_of(client, single, harness.references)
                found[name] += await open_loop(rate, seconds / TURNS, send)
    finally:
        other.stop()
    report.figure("generators / requests a second", f"{len(generators)} / {rate:.2f}")
    p99 = {}
    for name, outcomes in found.items():
        done = [o.seconds for o in outcomes if o.ok]
        p99[name] = percentile(done, 0.99)
        report.figure(
            f"{name}: requests, p50 / p99 seconds", f"{len(done)}, {percentile(done, 0.5):.3f} / {p99[name]:.3f}"
        )
        report.figure(f"{name}: ended with", Counter(o.code for o in outcomes))
    kept = all(o.ok for o in found["least outstanding"])
    report.invariant("by least outstanding all succeed", kept)
    ratio = p99["round robin"] / p99["least outstanding"]
    report.invariant("least outstanding has the lower p99; round robin's over it", ratio > 1, ratio)


class RoundRobin:
    """Chooses replicas in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, replicas: Sequence[Replica]) -> Replica:
        """The next one."""
        self._turn += 1
        return replicas[self._turn % len(replicas)]


def main() -> None:
    """A gateway as `python -m gateway`, with replicas chosen in turn."""
    run(GatewaySettings, "gateway", partial(build, choose=RoundRobin()))


if __name__ == "__main__":
    main()
