"""More load than the capacity: accepted requests keep their deadline, the rest is refused at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

from hart import errors

from benchmarks.drills import chaos, metrics
from benchmarks.drills.harness import QUEUE, SLOTS, Harness, opened
from benchmarks.drills.load import RequestResult, any_of, capacity, draw
from benchmarks.drills.report import Report
from benchmarks.harness.load import open_loop, percentile

FACTOR = 3
AT_ONCE = 1.0
"""Seconds within which a refusal must arrive: safety and text encoding come before the generator's refusal."""
PENDING_DECODES = 4


async def overload(
    harness: Harness, seconds: float, report: Report, stall: float = 0.0, at_once: float = 0.99, normal: float = 1.5
) -> None:
    """An open loop at three times the capacity, and then none.

    `stall`: seconds for which a busy machine may delay a process; `at_once`: the share of refusals that must arrive
    within AT_ONCE; `normal`: the largest ratio to the latency of a request alone that counts as normal.
    """
    single = [case for case in harness.cases if case.num_images == 1 and not case.streams]
    room = len(harness.replicas("ar_generator")) * (QUEUE + SLOTS)
    baseline = await capacity(harness.client, single, harness.references, room // 2, min(8.0, seconds / 3))
    calm = percentile([(await draw(harness.client, single[0], harness.references)).seconds for _ in range(5)], 0.5)
    deadline = 2 * room / baseline + 2 * calm + 1 + stall
    seconds = max(seconds, 1.2 * room / baseline)  # else the queues would not fill
    report.figure("capacity, images/s", baseline)
    report.figure("one request alone, seconds", calm)
    report.figure("deadline, seconds", deadline)
    deepest: Counter[str] = Counter()
    async with _meanwhile(lambda: _watch(harness, deepest)):
        outcomes = await open_loop(
            FACTOR * baseline, seconds, any_of(harness.client, single, harness.references, deadline)
        )
        arrivals_ended = max(o.began for o in outcomes)
        drained = time.monotonic() - arrivals_ended
        await _normal(harness, normal * calm + 0.1)
        recovery = time.monotonic() - arrivals_ended
    _judge(report, outcomes, at_once)
    report.figure("deepest queues", deepest)
    bounds = {"ar_generator": QUEUE, "decoder": QUEUE, "safety": 64, "text_encoder": 64}
    report.invariant(
        "no queue exceeds its limit", all(deepest[stage] <= bound for stage, bound in bounds.items()), bounds
    )
    report.figure("seconds from the load's end to the last answer", drained)
    report.invariant(
        "latency is back to normal as soon as the queue is empty", recovery < drained + 5 + stall, f"{recovery:.2f} s"
    )


async def _watch(harness: Harness, deepest: Counter[str]) -> None:
    while True:
        for process in harness.replicas():
            depth = (await metrics.scrape(process)).total("hart_queue_depth")
            deepest[process.name] = max(deepest[process.name], int(depth))
        await asyncio.sleep(0.1)


async def _normal(harness: Harness, normal: float) -> None:
    """Return when a request takes no longer than normal, or after 30 seconds."""
    began = time.monotonic()
    while time.monotonic() - began < 30:
        outcome = await draw(harness.client, harness.cases[0], harness.references)
        if outcome.ok and outcome.seconds <= normal:
            return


def _judge(report: Report, outcomes: list[RequestResult], at_once: float) -> None:
    refused = [o for o in outcomes if isinstance(o.error, errors.Overloaded)]
    accepted = [o for o in outcomes if not isinstance(o.error, errors.Overloaded)]
    done = [o.seconds for o in accepted if o.ok]
    late = percentile([o.seconds for o in refused], at_once)
    report.figure("requests", len(outcomes))
    report.figure("ended with", Counter(o.code for o in outcomes))
    lasted = max(o.began + o.seconds for o in outcomes) - min(o.began for o in outcomes)
    report.figure("goodput, images/s", len(done) / lasted)
    report.figure("seconds of the accepted, p50 / p99", f"{percentile(done, 0.5):.3f} / {percentile(done, 0.99):.3f}")
    report.figure("seconds of the refused, p50", percentile([o.seconds for o in refused], 0.5))
    by = Counter(f"{o.error.stage} {o.error.setting}" for o in refused if isinstance(o.error, errors.Overloaded))
    report.figure("refused by", by)
    report.invariant("some requests are refused", bool(refused), len(refused))
    faults = Counter(o.fault for o in outcomes if o.fault)
    sentence = "each ends with its own image, or a status that names stage, setting and retry_after"
    report.invariant(sentence, not faults, faults)
    kept = len(done) / max(1, len(accepted))
    report.invariant("99% of the accepted keep their deadline", kept >= 0.99, f"{kept:.2%} of {len(accepted)}")
    report.invariant(f"the rest are refused at once (p{100 * at_once:g})", late <= AT_ONCE, f"{late:.3f} s")


async def slow_decoder(harness: Harness, seconds: float, report: Report) -> None:
    """Decoders much slower than the generators: the gateway holds generation back, and latents do not pile up."""
    single = [case for case in harness.cases if case.num_images == 1 and not case.preview_every]
    scales = len((await harness.client.describe()).models[0].shape.scales)
    async with (
        opened(harness.cluster, harness.references, max_pending_decodes=str(PENDING_DECODES)) as gated,
        AsyncExitStack() as stack,
    ):
        begun = await _ahead(gated, scales)
        for decoder in gated.replicas("decoder"):
            await stack.enter_async_context(chaos.slowed(decoder, 0.05))
        peak: Counter[str] = Counter()
        async with _meanwhile(lambda: _watch_latents(gated, scales, begun, peak)):
            rate = 2 * await capacity(gated.client, single, gated.references, 2 * PENDING_DECODES, seconds / 4)
            outcomes = await open_loop(rate, seconds, any_of(gated.client, single, gated.references, 60.0))
        faults = Counter(o.fault for o in outcomes if o.fault)
        report.figure("requests/s sent, twice the slow decoders' rate", rate)
        report.figure("ended with", Counter(o.code for o in outcomes))
        # Each latent that may wait, and each image that the generators draw at the same time.
        bound = PENDING_DECODES + SLOTS * len(gated.replicas("ar_generator"))
        report.invariant(
            f"at most {bound} latents are ahead of the decoders", peak["latents"] <= bound, peak["latents"]
        )
        report.invariant("each request ends with its own image or a clear status", not faults, faults)
    await harness.settled()


async def _ahead(harness: Harness, scales: int) -> float:
    """Latents drawn (partial ones counted by their share) less images decoded, since the processes started."""
    drawn = await harness.total("ar_generator", "hart_batch_size_sum")
    return drawn / scales - await harness.total("decoder", "hart_batch_size_sum")


async def _watch_latents(harness: Harness, scales: int, begun: float, peak: Counter[str]) -> None:
    while True:
        peak["latents"] = max(peak["latents"], round(await _ahead(harness, scales) - begun))
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
