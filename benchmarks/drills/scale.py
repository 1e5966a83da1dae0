"""Replicas that come and go under load, by the lists that a gateway watches: nothing is lost, new replicas work."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hart.aio import AsyncClient

from benchmarks.drills import chaos
from benchmarks.drills.endpoints import FileListing, KubernetesListing, Listing
from benchmarks.drills.harness import Harness
from benchmarks.drills.load import RequestResult, any_of, judge
from benchmarks.drills.metrics import total
from benchmarks.drills.report import Report
from benchmarks.harness.load import closed_loop
from benchmarks.harness.processes import Process

WINDOW = 5.0
"""Seconds after which a new replica's share is measured."""
CALLERS = 3
"""A closed loop: a starting replica takes most of a small machine, and an open loop would be refused for that, which is
another drill's concern."""
STRETCH = 5.0
"""Seconds after which callers check whether the drill is over."""
STAGES = ("ar_generator", "decoder")
"""Which stages are scaled: the first by EndpointSlices, the second by a file."""
BEGUN = "hart_queue_duration_seconds_count"
"""The metric that counts the work that a replica has begun."""


async def scale(harness: Harness, seconds: float, report: Report) -> None:
    """A generator (by EndpointSlices) and a decoder (by a file) more, and fewer again, under load: nothing is lost, the
    new one works within 5 s, and the leaving one finishes its images."""
    async with _scalable(harness) as (client, listings):
        end = time.monotonic() + seconds

        async def turns() -> None:
            for turn in range(1_000):
                if turn and time.monotonic() > end:
                    return
                for stage in STAGES:
                    await _more_and_fewer(harness, stage, listings[stage], report)

        scaling = asyncio.create_task(turns())
        send = any_of(client, harness.cases, harness.references)
        outcomes: list[RequestResult] = []
        while not scaling.done():
            outcomes += await closed_loop(CALLERS, STRETCH, send)
        await scaling
    judge(report, outcomes, harness.references, share=1.0)


async def scale_briefly(harness: Harness, seconds: float, report: Report, stall: float = 0.0) -> None:
    """A second generator, which runs already, is listed and taken from the list again, under load. `stall`: seconds for
    which a busy machine may delay a process."""
    second = harness.replicas("ar_generator")[1]
    async with _scalable(harness) as (client, listings):
        listing = listings["ar_generator"]

        async def turn() -> None:
            await _add(harness, "ar_generator", listing, second, report, WINDOW + stall)
            await chaos.busy(second)
            listing.leave(second.address)
            await _unlisted(client, "ar_generator")
            await _untouched(second, report)

        turning = asyncio.create_task(turn())
        send = any_of(client, harness.cases, harness.references)
        outcomes: list[RequestResult] = []
        while not turning.done():
            outcomes += await closed_loop(CALLERS, seconds, send)
        await turning
    judge(report, outcomes, harness.references, share=1.0)


@asynccontextmanager
async def _scalable(harness: Harness) -> AsyncIterator[tuple[AsyncClient, dict[str, Listing]]]:
    """A caller of a gateway that follows lists, each of which names one replica at first."""
    folder = harness.cluster.folder
    slices, file = KubernetesListing("ar-generator"), FileListing(folder / "decoders")
    listings: dict[str, Listing] = dict(zip(STAGES, (slices, file), strict=True))
    for stage, listing in listings.items():
        listing.add(harness.replicas(stage)[0].address)
    followed = {stage: listing.setting for stage, listing in listings.items()}
    async with slices.served(folder):
        gateway = Process("gateway", folder, {**harness.cluster.gateway.settings, **followed}).start()
        try:
            await asyncio.to_thread(gateway.await_ready, 60)
            async with AsyncClient(gateway.address) as client, asyncio.timeout(60):
                while not all(stage.ready for stage in (await client.status()).stages):
                    await asyncio.sleep(0.1)
            async with AsyncClient(gateway.address) as client:
                yield client, listings
        finally:
            await asyncio.to_thread(gateway.stop)


async def _more_and_fewer(harness: Harness, stage: str, listing: Listing, report: Report) -> None:
    new = Process(stage, harness.cluster.folder, harness.replicas(stage)[0].settings).start()
    try:
        await asyncio.to_thread(new.await_ready, 240)
        await _add(harness, stage, listing, new, report)
        await chaos.busy(new)
        await _remove(stage, listing, new, report)
    finally:
        if new.alive():
            new.kill()


async def _add(
    harness: Harness, stage: str, listing: Listing, new: Process, report: Report, within: float = WINDOW
) -> None:
    """List a replica that is ready, and measure how soon (in at most `within` seconds) and how much it works."""
    old = harness.replicas(stage)[0]
    before_new, before_old = await total([new], BEGUN), await total([old], BEGUN)
    listed = time.monotonic()
    listing.add(new.address)
    first = None
    while (waited := time.monotonic() - listed) < WINDOW or (first is None and waited < within):
        if first is None and await total([new], BEGUN) > before_new:
            first = time.monotonic() - listed
        await asyncio.sleep(0.05)
    own, others = await total([new], BEGUN) - before_new, await total([old], BEGUN) - before_old
    begun = f"its first work after {first:.2f} s" if first is not None else "none"
    report.invariant(f"{stage}: the new replica works within {within:g} s", first is not None, begun)
    report.figure(f"  its share of the work of the first {WINDOW:g} s (fair: 50%)", f"{own:.0f} of {own + others:.0f}")


async def _remove(stage: str, listing: Listing, leaving: Process, report: Report) -> None:
    """As Kubernetes deletes a pod, but without the chart's pause before SIGTERM, which is harder."""
    running = await total([leaving], "hart_inflight")
    began = time.monotonic()
    listing.leave(leaving.address)
    leaving.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(leaving.process.wait, 120)
    report.invariant(
        f"{stage}: the leaving replica finishes its {running:.0f} and exits with 0", code == 0,
        f"exit code {code} after {time.monotonic() - began:.2f} s",
    )  # fmt: skip


async def _untouched(leaving: Process, report: Report) -> None:
    """A replica that is no longer listed gets no new work, and finishes what it has."""
    end = time.monotonic() + 60
    while (left := await total([leaving], "hart_inflight")) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    report.invariant("a replica that is no longer listed finishes what it has", not left, left)
    begun = await total([leaving], BEGUN)
    await asyncio.sleep(1.0)
    report.invariant("and gets no new work", await total([leaving], BEGUN) == begun)


async def _unlisted(client: AsyncClient, stage: str) -> None:
    """Return when the gateway's status has one replica of the stage."""
    async with asyncio.timeout(60):
        while any(one.stage == stage and one.replicas > 1 for one in (await client.status()).stages):
            await asyncio.sleep(0.1)
