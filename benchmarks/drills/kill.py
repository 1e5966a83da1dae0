"""Replicas that die, hang, slow down or lose their connections under a mixed load: no request is lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from benchmarks.drills import chaos, metrics
from benchmarks.drills.harness import Harness, opened
from benchmarks.drills.load import any_of, capacity, judge, resent_when_full
from benchmarks.drills.proxy import cut, proxies
from benchmarks.drills.report import Report
from benchmarks.harness.load import open_loop
from benchmarks.harness.processes import STAGES, Process

SHARE = 0.25  # of the baseline capacity: a replica's restart takes most of a small machine
DEADLINE = 60.0
SUCCESS = 0.99
CUT_PAUSE = 0.33
"""Seconds between two cuts, on average."""


async def _under_faults(
    harness: Harness, seconds: float, report: Report, inject: Callable[[], Coroutine[Any, Any, int]]
) -> None:
    baseline = await capacity(harness.client, harness.cases, harness.references, 4, min(5.0, seconds / 6))
    rate = max(0.2, SHARE * baseline)
    report.figure("baseline capacity, images/s", baseline)
    report.figure("requests/s sent", rate)
    injecting = asyncio.ensure_future(inject())
    send = resent_when_full(any_of(harness.client, harness.cases, harness.references, DEADLINE))
    outcomes = await open_loop(rate, seconds, send, until=injecting)
    times = await injecting
    report.figure("faults", times)
    seen = await metrics.scrape(harness.gateway)
    retries = Counter({stage: int(seen.total("hart_retries_total", stage=stage)) for stage in STAGES})
    report.figure("retries", retries)
    report.invariant("at least one fault was injected", times > 0, times)
    judge(report, outcomes, harness.references, share=SUCCESS)
    await harness.settled()
    report.invariant("all replicas are ready again, and no work is left", True)


async def inject_faults(
    harness: Harness, seconds: float, report: Report, act: Callable[[Process], Awaitable[None]], stage: str = ""
) -> None:
    """`act` on one random replica after another (of this stage, or of any)."""
    pause = min(2.0, seconds / 4)
    await _under_faults(
        harness, seconds, report, lambda: chaos.inject(harness.replicas(stage), act, seconds * 0.9, pause)
    )


async def kill(harness: Harness, seconds: float, report: Report) -> None:
    """SIGKILL to a random replica, the next when it is ready again."""
    await inject_faults(harness, seconds, report, chaos.kill)


async def hang(harness: Harness, seconds: float, report: Report) -> None:
    """SIGSTOP to a random replica for up to nine seconds."""
    await inject_faults(harness, seconds, report, chaos.hang)


async def slow(harness: Harness, seconds: float, report: Report) -> None:
    """A random replica runs an eighth of the time for some seconds."""
    await inject_faults(harness, seconds, report, chaos.slow)


async def cut_connections(harness: Harness, seconds: float, report: Report) -> None:
    """Connections between the gateway and the stages are reset, mostly in the middle of an answer."""
    replicas = harness.replicas()
    async with proxies([process.port for process in replicas]) as between:
        where = {
            stage: ",".join(p.address for p, r in zip(between, replicas, strict=True) if r.name == stage)
            for stage in STAGES
        }
        async with opened(harness.cluster, harness.references, **where) as behind:
            await _under_faults(behind, seconds, report, lambda: chaos.inject(between, cut, seconds, CUT_PAUSE))
            report.figure("connections cut", sum(proxy.cuts for proxy in between))
