"""Replicas that die, hang, slow down or lose their connections under a mixed load: nothing is lost but time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks.drills import chaos, metrics
from benchmarks.drills.load import any_of, capacity, judge, open_loop, patient
from benchmarks.drills.proxy import cut, proxies
from benchmarks.drills.report import Report
from benchmarks.drills.site import Site, opened
from tests.e2e.processes import STAGES, Process

SHARE = 0.25  # of the capacity in peace: a replica's restart takes most of a small machine
DEADLINE = 60.0
SUCCESS = 0.99
CUT_PAUSE = 0.33
"""Seconds between two cuts, on average."""


async def _disturbed(
    site: Site, seconds: float, report: Report, disturb: Callable[[], Coroutine[Any, Any, int]]
) -> None:
    peace = await capacity(site.client, site.asks, site.truth, 4, min(5.0, seconds / 6))
    rate = max(0.2, SHARE * peace)
    report.figure("capacity in peace, pictures/s", peace)
    report.figure("requests/s sent", rate)
    disturbing = asyncio.ensure_future(disturb())
    ask = patient(any_of(site.client, site.asks, site.truth, DEADLINE))
    outcomes = await open_loop(rate, seconds, ask, beside=disturbing)
    times = await disturbing
    report.figure("disturbances", times)
    seen = await metrics.scrape(site.gateway)
    retries = Counter({stage: int(seen.total("hart_retries_total", stage=stage)) for stage in STAGES})
    report.figure("attempts made again", retries)
    report.law("something was disturbed", times > 0, times)
    judge(report, outcomes, site.truth, share=SUCCESS)
    await site.settled()
    report.law("all replicas are back in service, and nothing is left in work", True)


async def haunted(
    site: Site, seconds: float, report: Report, act: Callable[[Process], Awaitable[None]], stage: str = ""
) -> None:
    """`act` on one random replica after another (of this stage, or of any)."""
    pause = min(2.0, seconds / 4)
    await _disturbed(site, seconds, report, lambda: chaos.haunt(site.replicas(stage), act, seconds * 0.9, pause))


async def kill(site: Site, seconds: float, report: Report) -> None:
    """SIGKILL to a random replica, the next when it is ready again."""
    await haunted(site, seconds, report, chaos.kill)


async def hang(site: Site, seconds: float, report: Report) -> None:
    """SIGSTOP to a random replica for up to nine seconds."""
    await haunted(site, seconds, report, chaos.hang)


async def slow(site: Site, seconds: float, report: Report) -> None:
    """A random replica has an eighth of its time for some seconds."""
    await haunted(site, seconds, report, chaos.slow)


async def cut_connections(site: Site, seconds: float, report: Report) -> None:
    """Connections between the gateway and the stages are reset, mostly in the middle of an answer."""
    replicas = site.replicas()
    async with proxies([process.port for process in replicas]) as between:
        where = {
            stage: ",".join(p.address for p, r in zip(between, replicas, strict=True) if r.name == stage)
            for stage in STAGES
        }
        async with opened(site.cluster, site.truth, **where) as behind:
            await _disturbed(behind, seconds, report, lambda: chaos.haunt(between, cut, seconds, CUT_PAUSE))
            report.figure("connections cut", sum(proxy.cuts for proxy in between))
