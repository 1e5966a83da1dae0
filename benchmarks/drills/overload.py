"""More than the cluster can do: what is accepted is done in time, the rest is told at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from hart import errors

from benchmarks.drills import chaos, metrics
from benchmarks.drills.load import RequestResult, any_of, capacity, draw, open_loop
from benchmarks.drills.report import Report, percentile
from benchmarks.drills.site import QUEUE, SLOTS, Site, opened

FACTOR = 3
AT_ONCE = 1.0
"""Seconds within which a refusal comes: the verdict and the conditioning stand before the generator's."""
LATENTS = 4


async def overload(
    site: Site, seconds: float, report: Report, stall: float = 0.0, told: float = 0.99, normal: float = 1.5
) -> None:
    """An open loop at three times the capacity, and then none. `stall`: seconds for which a busy machine may keep a
    process waiting meanwhile; `told`: the share of the refused that must hear of it at once; `normal`: up to so many
    times a request's latency alone is normal."""
    single = [ask for ask in site.asks if ask.num_images == 1 and not ask.streams]
    room = len(site.replicas("ar_generator")) * (QUEUE + SLOTS)
    peace = await capacity(site.client, single, site.truth, room // 2, min(8.0, seconds / 3))
    calm = percentile([(await draw(site.client, single[0], site.truth)).seconds for _ in range(5)], 0.5)
    deadline = 2 * room / peace + 2 * calm + 1 + stall
    seconds = max(seconds, 1.2 * room / peace)  # else the queues would not even fill
    report.figure("capacity, pictures/s", peace)
    report.figure("one request alone, seconds", calm)
    report.figure("deadline, seconds", deadline)
    deepest: Counter[str] = Counter()
    async with _meanwhile(lambda: _watch(site, deepest)):
        outcomes = await open_loop(FACTOR * peace, seconds, any_of(site.client, single, site.truth, deadline))
        arrivals_ended = max(o.began for o in outcomes)
        drained = time.monotonic() - arrivals_ended
        await _normal(site, normal * calm + 0.1)
        recovery = time.monotonic() - arrivals_ended
    _judge(report, outcomes, told)
    report.figure("deepest queues", deepest)
    bounds = {"ar_generator": QUEUE, "decoder": QUEUE, "safety": 64, "text_encoder": 64}
    report.law("no queue passes its bound", all(deepest[stage] <= bound for stage, bound in bounds.items()), bounds)
    report.figure("seconds from the load's end to the last answer", drained)
    report.law(
        "latency is back to normal as soon as the queue is empty", recovery < drained + 5 + stall, f"{recovery:.2f} s"
    )


async def _watch(site: Site, deepest: Counter[str]) -> None:
    while True:
        for process in site.replicas():
            depth = (await metrics.scrape(process)).total("hart_queue_depth")
            deepest[process.name] = max(deepest[process.name], int(depth))
        await asyncio.sleep(0.1)


async def _normal(site: Site, normal: float) -> None:
    """Return when a request takes no longer than normal, after half a minute at the latest."""
    began = time.monotonic()
    while time.monotonic() - began < 30:
        outcome = await draw(site.client, site.asks[0], site.truth)
        if outcome.ok and outcome.seconds <= normal:
            return


def _judge(report: Report, outcomes: list[RequestResult], told: float) -> None:
    refused = [o for o in outcomes if isinstance(o.error, errors.Overloaded)]
    accepted = [o for o in outcomes if not isinstance(o.error, errors.Overloaded)]
    done = [o.seconds for o in accepted if o.ok]
    late = percentile([o.seconds for o in refused], told)
    report.figure("requests", len(outcomes))
    report.figure("ended with", Counter(o.code for o in outcomes))
    lasted = max(o.began + o.seconds for o in outcomes) - min(o.began for o in outcomes)
    report.figure("goodput, pictures/s", len(done) / lasted)
    report.figure("seconds of the accepted, p50 / p99", f"{percentile(done, 0.5):.3f} / {percentile(done, 0.99):.3f}")
    report.figure("seconds of the refused, p50", percentile([o.seconds for o in refused], 0.5))
    by = Counter(f"{o.error.stage} {o.error.setting}" for o in refused if isinstance(o.error, errors.Overloaded))
    report.figure("refused by", by)
    report.law("some had to be refused", bool(refused), len(refused))
    faults = Counter(o.fault for o in outcomes if o.fault)
    sentence = "each ends with its own picture, or a status that names stage, setting and when to come again"
    report.law(sentence, not faults, faults)
    kept = len(done) / max(1, len(accepted))
    report.law("99% of the accepted keep their deadline", kept >= 0.99, f"{kept:.2%} of {len(accepted)}")
    report.law(f"the rest are told at once (p{100 * told:g})", late <= AT_ONCE, f"{late:.3f} s")


async def slow_decoder(site: Site, seconds: float, report: Report) -> None:
    """Decoders much slower than the generators: these are held back, and latents do not pile up."""
    single = [ask for ask in site.asks if ask.num_images == 1 and not ask.preview_every]
    scales = len((await site.client.describe()).models[0].shape.scales)
    async with opened(site.cluster, site.truth, max_pending_decodes=str(LATENTS)) as gated, AsyncExitStack() as stack:
        begun = await _ahead(gated, scales)
        for decoder in gated.replicas("decoder"):
            await stack.enter_async_context(chaos.slowed(decoder, 0.05))
        most: Counter[str] = Counter()
        async with _meanwhile(lambda: _watch_latents(gated, scales, begun, most)):
            rate = 2 * await capacity(gated.client, single, gated.truth, 2 * LATENTS, seconds / 4)
            outcomes = await open_loop(rate, seconds, any_of(gated.client, single, gated.truth, 60.0))
        faults = Counter(o.fault for o in outcomes if o.fault)
        report.figure("requests/s sent, twice the slow decoders' rate", rate)
        report.figure("ended with", Counter(o.code for o in outcomes))
        # A place for each latent that may wait, and for each picture that the generators draw at the same time.
        bound = LATENTS + SLOTS * len(gated.replicas("ar_generator"))
        report.law(f"latents ahead of the decoders are {bound} at most", most["latents"] <= bound, most["latents"])
        report.law("each request ends with its own picture or a clear status", not faults, faults)
    await site.settled()


async def _ahead(site: Site, scales: int) -> float:
    """Latents drawn (in parts, too) less pictures decoded, since the processes began."""
    drawn = await site.total("ar_generator", "hart_batch_size_sum")
    return drawn / scales - await site.total("decoder", "hart_batch_size_sum")


async def _watch_latents(site: Site, scales: int, begun: float, most: Counter[str]) -> None:
    while True:
        most["latents"] = max(most["latents"], round(await _ahead(site, scales) - begun))
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _meanwhile(work: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
