"""Safety that is away, and processes that are asked to end: fail closed, and lose nothing that was accepted."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import suppress

from hart import errors
from hart.aio import AsyncClient

from benchmarks.drills import chaos
from benchmarks.drills.asks import Ask
from benchmarks.drills.load import RequestResult, any_of, capacity, draw, judge, open_loop, patient
from benchmarks.drills.metrics import scrape
from benchmarks.drills.report import Report
from benchmarks.drills.site import Site
from tests.e2e.processes import Process

ASK = Ask("a red heart", 0)
SHARE = 0.25
FORCED = 128 + signal.SIGTERM
AT_ONCE = 2.0
"""Seconds: far from the time that running work may take to finish."""


async def safety_down(site: Site, seconds: float, report: Report) -> None:
    """All safety replicas killed, then hung: no picture, UNAVAILABLE, and the generator never hears of it."""
    await safety_killed(site, seconds, report)
    await safety_hung(site, seconds, report)


async def safety_killed(site: Site, seconds: float, report: Report) -> None:
    """All safety replicas get SIGKILL, and come back."""
    replicas = site.replicas("safety")
    for process in replicas:
        process.kill()
    await _refused(site, "killed", report)
    await asyncio.gather(*map(chaos.revive, replicas))
    await site.settled()
    report.law("with safety back there is a picture", (await draw(site.client, ASK, site.truth)).ok)


async def safety_hung(site: Site, seconds: float, report: Report) -> None:
    """All safety replicas stand still."""
    with chaos.hung(*site.replicas("safety")):
        await _refused(site, "hung", report)
    await site.settled()
    report.law("and after it hung, too", (await draw(site.client, ASK, site.truth)).ok)


async def _refused(site: Site, how: str, report: Report) -> None:
    before = await site.total("ar_generator", "hart_batch_size_sum")
    outcomes = await asyncio.gather(*(draw(site.client, ask, site.truth, 30.0) for ask in site.asks[:8]))
    drawn = await site.total("ar_generator", "hart_batch_size_sum") - before
    report.law(f"safety {how}: no picture", not any(o.code == "OK" for o in outcomes) and not drawn, drawn)
    named = all(isinstance(o.error, errors.Unavailable) and o.error.stage == "safety" for o in outcomes)
    timed = all(isinstance(o.error, errors.Unavailable) and o.error.retry_after is not None for o in outcomes)
    report.law(
        f"safety {how}: UNAVAILABLE that names it and says when to come again", named and timed, _codes(outcomes)
    )
    report.figure("  longest wait for it, seconds", max(o.seconds for o in outcomes))


def _codes(outcomes: list[RequestResult]) -> Counter[str]:
    return Counter(f"{o.code} {getattr(o.error, 'stage', '')}" for o in outcomes)


async def rolling(site: Site, seconds: float, report: Report, stage: str = "", most: int | None = None) -> None:
    """Every replica in turn gets SIGTERM and a successor, under load: nothing is lost, and whoever ends says 0.
    `stage`: its replicas alone; `most`: the first few alone."""
    rate = max(0.2, SHARE * await capacity(site.client, site.asks, site.truth, 4, min(5.0, seconds / 6)))
    report.figure("requests/s sent", rate)
    end = time.monotonic() + seconds
    codes: list[int] = []

    async def roll() -> None:
        while not codes or time.monotonic() < end:
            for process in site.replicas(stage)[:most]:
                codes.append(await _replaced(process))

    rolling = asyncio.create_task(roll())
    ask = patient(any_of(site.client, site.asks, site.truth))
    outcomes = await open_loop(rate, seconds, ask, beside=rolling)
    await rolling
    report.figure("replicas replaced", len(codes))
    report.law("each ends with 0", not any(codes), codes)
    judge(report, outcomes, site.truth, share=1.0)


async def _replaced(process: Process) -> int:
    process.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(process.process.wait, 60)
    await chaos.revive(process)
    return code


async def gateway_ends(site: Site, seconds: float, report: Report) -> None:
    """SIGTERM to a gateway with accepted requests, and to one whose requests hang a second one."""
    with site.cluster.another_gateway() as gateway:
        outcomes = await _terminated(site, gateway, report)
        judge(report, outcomes, site.truth, share=1.0)
    gateway = Process("gateway", site.cluster.folder, site.cluster.where()).start()
    gateway.await_ready(60)
    async with AsyncClient(gateway.address) as client:
        with chaos.hung(*site.replicas("ar_generator")):
            waiting = asyncio.create_task(draw(client, ASK, site.truth, 20.0))
            await _taken(gateway, 1)
            gateway.process.send_signal(signal.SIGTERM)
            await _ending(gateway)
            report.law("SIGTERM waits for what runs", gateway.alive())
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(gateway.process.wait, 60)
            took = time.monotonic() - began
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    report.law("a second SIGTERM ends at once", took < AT_ONCE and code == FORCED, f"{took:.2f} s, exit code {code}")
    await site.settled()


async def _terminated(site: Site, gateway: Process, report: Report) -> list[RequestResult]:
    async with AsyncClient(gateway.address) as client:
        accepted = [asyncio.create_task(draw(client, ask, site.truth)) for ask in site.asks[:12]]
        await _taken(gateway, len(accepted))
        gateway.process.send_signal(signal.SIGTERM)
        await _ending(gateway)
        late = await draw(client, ASK, site.truth, 20.0)
        outcomes = list(await asyncio.gather(*accepted))
        code = await asyncio.to_thread(gateway.process.wait, 60)
    report.law("a gateway that ends refuses what comes late with UNAVAILABLE", late.code == "UNAVAILABLE", late.error)
    report.law("and exits with 0", code == 0, code)
    gateway.start()  # so that whoever made it can stop it
    return outcomes


async def _taken(gateway: Process, requests: int) -> None:
    """Return when the gateway has so many in work, or a while later."""
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while (await scrape(gateway)).total("hart_inflight") < requests:
                await asyncio.sleep(0.02)


async def _ending(gateway: Process) -> None:
    """Return when the gateway has heard that it is to end."""
    while await asyncio.to_thread(gateway.ready):
        await asyncio.sleep(0.02)
