"""Least outstanding cost against round robin, over three generators of which one is slow, in one run."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from functools import partial

from hart.aio import AsyncClient

from benchmarks.drills import chaos
from benchmarks.drills.asks import Ask, Truth
from benchmarks.drills.load import RequestResult, capacity, draw, open_loop
from benchmarks.drills.report import Report, percentile
from benchmarks.drills.site import Site
from tests.e2e.processes import Process

SLOW = 0.1
SHARE = 0.6
TURNS = 6


@dataclass
class RoundRobinGateway(Process):
    """A gateway that takes replicas in turn."""

    @property
    def module(self) -> str:
        """This one, run as a program."""
        return "benchmarks.drills.balance"


async def balance(site: Site, seconds: float, report: Report) -> None:
    """The same load by turns through either gateway; one generator has a tenth of its time."""
    single = [ask for ask in site.asks if ask.num_images == 1 and not ask.preview_every]
    generators = site.replicas("ar_generator")
    other = RoundRobinGateway("gateway", site.cluster.folder, site.cluster.where()).start()
    try:
        other.await_ready(60)
        async with AsyncClient(other.address) as in_turn, chaos.slowed(generators[0], SLOW):
            rate = SHARE * await capacity(site.client, single, site.truth, 2 * len(generators), seconds / 8)
            found: dict[str, list[RequestResult]] = {"least outstanding": [], "round robin": []}
            for turn in range(TURNS):
                name = ("least outstanding", "round robin")[turn % 2]
                client = (site.client, in_turn)[turn % 2]
                ask = partial(_ask, client, single, site.truth)
                found[name] += await open_loop(rate, seconds / TURNS, ask)
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
    report.law("by least outstanding all succeed", kept)
    ratio = p99["round robin"] / p99["least outstanding"]
    report.law("least outstanding has the lower p99; round robin's over it", ratio > 1, ratio)


async def _ask(client: AsyncClient, asks: list[Ask], truth: Truth) -> RequestResult:
    return await draw(client, random.choice(asks), truth)


class RoundRobin:
    """Chooses replicas in turn."""

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, replicas: list[object]) -> object:
        """The next one."""
        self._turn += 1
        return replicas[self._turn % len(replicas)]


def main() -> None:
    """A gateway as `python -m gateway`, with replicas chosen in turn."""
    from gateway import assembly
    from gateway.config import GatewaySettings
    from runtime.calls.pool import Pool
    from runtime.server.process import run

    def pool(*args: object, **kwargs: object) -> Pool:
        return Pool(*args, choose=RoundRobin(), **kwargs)  # type: ignore[arg-type]

    vars(assembly)["Pool"] = pool  # the gateway itself has no setting for it: there is no reason to choose another
    run(GatewaySettings, "gateway", assembly.build)


if __name__ == "__main__":
    main()
