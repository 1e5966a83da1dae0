"""Safety that is down, and processes that get SIGTERM: fail closed, and lose nothing that was accepted."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from contextlib import suppress

from hart import errors
from hart.aio import AsyncClient

from benchmarks.drills import chaos
from benchmarks.drills.cases import RequestCase
from benchmarks.drills.harness import Harness
from benchmarks.drills.load import RequestResult, any_of, capacity, draw, judge, resent_when_full
from benchmarks.drills.metrics import scrape
from benchmarks.drills.report import Report
from benchmarks.harness.load import open_loop
from benchmarks.harness.processes import Process

CASE = RequestCase("a red heart", 0)
SHARE = 0.25
FORCED = 128 + signal.SIGTERM
AT_ONCE = 2.0
"""Seconds: much less than running work may take to finish."""


async def safety_down(harness: Harness, seconds: float, report: Report) -> None:
    """All safety replicas killed, then hung: no image, UNAVAILABLE, and the generator gets no request."""
    await safety_killed(harness, seconds, report)
    await safety_hung(harness, seconds, report)


async def safety_killed(harness: Harness, seconds: float, report: Report) -> None:
    """All safety replicas get SIGKILL, and are started again."""
    replicas = harness.replicas("safety")
    for process in replicas:
        process.kill()
    await _refused(harness, "killed", report)
    await asyncio.gather(*map(chaos.revive, replicas))
    await harness.settled()
    report.invariant("with safety back there is an image", (await draw(harness.client, CASE, harness.references)).ok)


async def safety_hung(harness: Harness, seconds: float, report: Report) -> None:
    """All safety replicas hang."""
    with chaos.hung(*harness.replicas("safety")):
        await _refused(harness, "hung", report)
    await harness.settled()
    report.invariant("and after it hung, too", (await draw(harness.client, CASE, harness.references)).ok)


async def _refused(harness: Harness, how: str, report: Report) -> None:
    before = await harness.total("ar_generator", "hart_batch_size_sum")
    outcomes = await asyncio.gather(
        *(draw(harness.client, case, harness.references, 30.0) for case in harness.cases[:8])
    )
    drawn = await harness.total("ar_generator", "hart_batch_size_sum") - before
    report.invariant(f"safety {how}: no image", not any(o.code == "OK" for o in outcomes) and not drawn, drawn)
    named = all(isinstance(o.error, errors.Unavailable) and o.error.stage == "safety" for o in outcomes)
    timed = all(isinstance(o.error, errors.Unavailable) and o.error.retry_after is not None for o in outcomes)
    report.invariant(f"safety {how}: UNAVAILABLE with stage and retry_after", named and timed, _codes(outcomes))
    report.figure("  longest wait for it, seconds", max(o.seconds for o in outcomes))


def _codes(outcomes: list[RequestResult]) -> Counter[str]:
    return Counter(f"{o.code} {getattr(o.error, 'stage', '')}" for o in outcomes)


async def rolling(harness: Harness, seconds: float, report: Report, stage: str = "", first: int | None = None) -> None:
    """Every replica in turn gets SIGTERM and a successor, under load: nothing is lost, and each exits with 0.
    `stage`: its replicas alone; `first`: only so many of them."""
    rate = max(0.2, SHARE * await capacity(harness.client, harness.cases, harness.references, 4, min(5.0, seconds / 6)))
    report.figure("requests/s sent", rate)
    end = time.monotonic() + seconds
    codes: list[int] = []

    async def roll() -> None:
        while not codes or time.monotonic() < end:
            for process in harness.replicas(stage)[:first]:
                codes.append(await _replaced(process))

    rolling = asyncio.create_task(roll())
    send = resent_when_full(any_of(harness.client, harness.cases, harness.references))
    outcomes = await open_loop(rate, seconds, send, until=rolling)
    await rolling
    report.figure("replicas replaced", len(codes))
    report.invariant("each exits with 0", not any(codes), codes)
    judge(report, outcomes, harness.references, share=1.0)


async def _replaced(process: Process) -> int:
    process.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(process.process.wait, 60)
    await chaos.revive(process)
    return code


async def gateway_ends(harness: Harness, seconds: float, report: Report) -> None:
    """SIGTERM to a gateway with accepted requests, and a second SIGTERM to one whose requests hang."""
    with harness.cluster.another_gateway() as gateway:
        outcomes = await _terminated(harness, gateway, report)
        judge(report, outcomes, harness.references, share=1.0)
    gateway = Process("gateway", harness.cluster.folder, harness.cluster.where()).start()
    gateway.await_ready(60)
    async with AsyncClient(gateway.address) as client:
        with chaos.hung(*harness.replicas("ar_generator")):
            waiting = asyncio.create_task(draw(client, CASE, harness.references, 20.0))
            await _taken(gateway, 1)
            gateway.process.send_signal(signal.SIGTERM)
            await _ending(gateway)
            report.invariant("SIGTERM waits for what runs", gateway.alive())
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(gateway.process.wait, 60)
            took = time.monotonic() - began
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    report.invariant(
        "a second SIGTERM ends at once", took < AT_ONCE and code == FORCED, f"{took:.2f} s, exit code {code}"
    )
    await harness.settled()


async def _terminated(harness: Harness, gateway: Process, report: Report) -> list[RequestResult]:
    async with AsyncClient(gateway.address) as client:
        accepted = [asyncio.create_task(draw(client, case, harness.references)) for case in harness.cases[:12]]
        await _taken(gateway, len(accepted))
        gateway.process.send_signal(signal.SIGTERM)
        await _ending(gateway)
        late = await draw(client, CASE, harness.references, 20.0)
        outcomes = list(await asyncio.gather(*accepted))
        code = await asyncio.to_thread(gateway.process.wait, 60)
    report.invariant(
        "a gateway that shuts down refuses new requests with UNAVAILABLE", late.code == "UNAVAILABLE", late.error
    )
    report.invariant("and exits with 0", code == 0, code)
    gateway.start()  # the context manager that made it stops it
    return outcomes


async def _taken(gateway: Process, requests: int) -> None:
    """Return when the gateway has so many in work, or a while later."""
    with suppress(TimeoutError):
        async with asyncio.timeout(60):
            while (await scrape(gateway)).total("hart_inflight") < requests:
                await asyncio.sleep(0.02)


async def _ending(gateway: Process) -> None:
    """Return when the gateway's health is no longer SERVING: it has got the signal."""
    while await asyncio.to_thread(gateway.ready):
        await asyncio.sleep(0.02)
