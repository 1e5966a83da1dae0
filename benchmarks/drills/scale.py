"""Replicas that come and go under load, by the lists that a gateway follows: nothing is lost, and who is new works."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hart.aio import AsyncClient

from benchmarks.drills import chaos
from benchmarks.drills.endpoints import FileListing, KubernetesListing, Listing
from benchmarks.drills.load import RequestResult, any_of, closed_loop, judge
from benchmarks.drills.metrics import total
from benchmarks.drills.report import Report
from benchmarks.drills.site import Site
from tests.e2e.processes import Process

WINDOW = 5.0
"""Seconds after which a new replica's share is looked at."""
CALLERS = 3
"""Each sends the next when its last has ended: a replica that starts takes most of a small machine, and a load that
does not wait would be refused for that, which is no matter of this drill."""
STRETCH = 5.0
"""Seconds after which callers look whether the drill is over."""
STAGES = ("ar_generator", "decoder")
"""Which are scaled: the first by EndpointSlices, the second by a file."""
BEGUN = "hart_queue_duration_seconds_count"
"""Work that a replica has begun."""


async def scale(site: Site, seconds: float, report: Report) -> None:
    """A generator (by EndpointSlices) and a decoder (by a file) more, and fewer again, under load: nothing is lost, the
    new one works within 5 s, and the leaving one finishes its pictures."""
    async with _scalable(site) as (client, listings):
        end = time.monotonic() + seconds

        async def turns() -> None:
            for turn in range(1_000):
                if turn and time.monotonic() > end:
                    return
                for stage in STAGES:
                    await _more_and_fewer(site, stage, listings[stage], report)

        scaling = asyncio.create_task(turns())
        ask = any_of(client, site.asks, site.truth)
        outcomes: list[RequestResult] = []
        while not scaling.done():
            outcomes += await closed_loop(CALLERS, STRETCH, ask)
        await scaling
    judge(report, outcomes, site.truth, share=1.0)


async def scale_briefly(site: Site, seconds: float, report: Report, stall: float = 0.0) -> None:
    """A second generator, which runs already, is listed and taken from the list again, under load. `stall`: seconds for
    which a busy machine may keep a process waiting meanwhile."""
    second = site.replicas("ar_generator")[1]
    async with _scalable(site) as (client, listings):
        listing = listings["ar_generator"]

        async def turn() -> None:
            await _welcome(site, "ar_generator", listing, second, report, WINDOW + stall)
            await chaos.busy(second)
            listing.leave(second.address)
            await _unlisted(client, "ar_generator")
            await _untouched(second, report)

        turning = asyncio.create_task(turn())
        ask = any_of(client, site.asks, site.truth)
        outcomes: list[RequestResult] = []
        while not turning.done():
            outcomes += await closed_loop(CALLERS, seconds, ask)
        await turning
    judge(report, outcomes, site.truth, share=1.0)


@asynccontextmanager
async def _scalable(site: Site) -> AsyncIterator[tuple[AsyncClient, dict[str, Listing]]]:
    """A caller of a gateway that follows lists, each of which names one replica at first."""
    folder = site.cluster.folder
    slices, file = KubernetesListing("ar-generator"), FileListing(folder / "decoders")
    listings: dict[str, Listing] = dict(zip(STAGES, (slices, file), strict=True))
    for stage, listing in listings.items():
        listing.add(site.replicas(stage)[0].address)
    followed = {stage: listing.setting for stage, listing in listings.items()}
    async with slices.served(folder):
        gateway = Process("gateway", folder, {**site.cluster.gateway.settings, **followed}).start()
        try:
            await asyncio.to_thread(gateway.await_ready, 60)
            async with AsyncClient(gateway.address) as client, asyncio.timeout(60):
                while not all(stage.ready for stage in (await client.status()).stages):
                    await asyncio.sleep(0.1)
            async with AsyncClient(gateway.address) as client:
                yield client, listings
        finally:
            await asyncio.to_thread(gateway.stop)


async def _more_and_fewer(site: Site, stage: str, listing: Listing, report: Report) -> None:
    new = Process(stage, site.cluster.folder, site.replicas(stage)[0].settings).start()
    try:
        await asyncio.to_thread(new.await_ready, 240)
        await _welcome(site, stage, listing, new, report)
        await chaos.busy(new)
        await _farewell(stage, listing, new, report)
    finally:
        if new.alive():
            new.kill()


async def _welcome(
    site: Site, stage: str, listing: Listing, new: Process, report: Report, patience: float = WINDOW
) -> None:
    """List a replica that is ready, and see how soon (within `patience` seconds) and how much it works."""
    old = site.replicas(stage)[0]
    before_new, before_old = await total([new], BEGUN), await total([old], BEGUN)
    listed = time.monotonic()
    listing.add(new.address)
    first = None
    while (waited := time.monotonic() - listed) < WINDOW or (first is None and waited < patience):
        if first is None and await total([new], BEGUN) > before_new:
            first = time.monotonic() - listed
        await asyncio.sleep(0.05)
    own, others = await total([new], BEGUN) - before_new, await total([old], BEGUN) - before_old
    begun = f"its first work after {first:.2f} s" if first is not None else "none"
    report.law(f"{stage}: the new replica works within {patience:g} s", first is not None, begun)
    report.figure(f"  its share of the work of the first {WINDOW:g} s (fair: 50%)", f"{own:.0f} of {own + others:.0f}")


async def _farewell(stage: str, listing: Listing, leaving: Process, report: Report) -> None:
    """As Kubernetes deletes a pod, without the chart's pause before SIGTERM: the harder way."""
    running = await total([leaving], "hart_inflight")
    began = time.monotonic()
    listing.leave(leaving.address)
    leaving.process.send_signal(signal.SIGTERM)
    code = await asyncio.to_thread(leaving.process.wait, 120)
    report.law(
        f"{stage}: who leaves finishes its {running:.0f} and exits with 0", code == 0,
        f"exit code {code} after {time.monotonic() - began:.2f} s",
    )  # fmt: skip


async def _untouched(leaving: Process, report: Report) -> None:
    """Who is no longer listed is sent nothing new, and finishes what it has."""
    end = time.monotonic() + 60
    while (left := await total([leaving], "hart_inflight")) and time.monotonic() < end:
        await asyncio.sleep(0.1)
    report.law("who is no longer listed finishes what it has", not left, left)
    begun = await total([leaving], BEGUN)
    await asyncio.sleep(1.0)
    report.law("and is sent nothing more", await total([leaving], BEGUN) == begun)


async def _unlisted(client: AsyncClient, stage: str) -> None:
    """Return when the gateway has heard that one replica is left."""
    async with asyncio.timeout(60):
        while any(one.stage == stage and one.replicas > 1 for one in (await client.status()).stages):
            await asyncio.sleep(0.1)
