"""Requests whose time runs out, at the door and in each stage: the status names the stage, and no work follows."""

from __future__ import annotations

import asyncio
import time

from hart import errors

from benchmarks.drills import chaos, metrics
from benchmarks.drills.asks import Ask
from benchmarks.drills.load import RequestResult, draw
from benchmarks.drills.report import Report
from benchmarks.drills.site import Site, opened
from tests.e2e.processes import STAGES

MARGIN = 0.4
"""Seconds that this gateway keeps back, so that a busy machine still brings its answer before the caller's own clock
ends the call."""
SHORT = 0.5
TRIES = 4
ASK = Ask("a red heart", 0)


async def deadlines(site: Site, seconds: float, report: Report) -> None:
    """1 ms, shorter than a picture, and out of time in each stage in turn."""
    await _too_short(site, report)
    async with opened(site.cluster, site.truth, deadline_margin_seconds=str(MARGIN)) as careful:
        await _shorter_than_a_picture(careful, report)
        for stage in STAGES:
            await _hangs(careful, stage, report)


async def _work(site: Site) -> dict[str, float]:
    return {stage: await site.total(stage, "hart_batch_size_sum") for stage in STAGES}


async def _too_short(site: Site, report: Report) -> None:
    before = await _work(site)
    outcomes = await asyncio.gather(*(draw(site.client, ASK, site.truth, 0.001) for _ in range(50)))
    await site.settled()
    after = await _work(site)
    ended = all(isinstance(o.error, errors.DeadlineExceeded) for o in outcomes)
    report.law("1 ms: DEADLINE_EXCEEDED, 50 times", ended, {o.code for o in outcomes})
    report.law("and no stage worked for it", after == before, {s: after[s] - before[s] for s in STAGES})


async def _shorter_than_a_picture(site: Site, report: Report) -> None:
    # The fastest: what else the machine does only makes a picture slower, and may end at any moment.
    alone = min([(await draw(site.client, ASK, site.truth)).seconds for _ in range(8)])
    report.figure("a picture alone at its fastest, seconds", alone)
    scales = len((await site.client.describe()).models[0].shape.scales)
    before = await site.total("ar_generator", "hart_scale_duration_seconds_count", scale=str(scales - 1))
    for _ in range(TRIES):
        outcome = await draw(site.client, ASK, site.truth, MARGIN + 0.4 * alone)
        await site.settled()
        if _names(outcome, "ar_generator") or not isinstance(outcome.error, errors.DeadlineExceeded):
            break  # else a busy machine took the time before the generator had the request
    last = await site.total("ar_generator", "hart_scale_duration_seconds_count", scale=str(scales - 1)) - before
    report.law(
        "shorter than a picture: DEADLINE_EXCEEDED names the generator", _names(outcome, "ar_generator"), _said(outcome)
    )
    report.law("and the picture is not drawn to its end", last == 0, last)


async def _hangs(site: Site, stage: str, report: Report) -> None:
    """The stage stands still until the request's time is over, and finds it when it goes on."""
    replicas = site.replicas(stage)
    ask = f"a red heart {time.time_ns()}"  # no cache holds it
    counted = [p for name in STAGES[STAGES.index(stage) :] for p in site.replicas(name)]
    if stage in ("safety", "text_encoder"):  # these two are asked side by side
        counted = [*replicas, *site.replicas("ar_generator"), *site.replicas("decoder")]
    if stage == "decoder":
        counted = replicas
    worked = 0.0
    for _ in range(TRIES):
        enough = await _enough(site)
        before = await metrics.total(counted, "hart_batch_size_sum")
        began = time.monotonic()
        with chaos.hung(*replicas):
            seen = await _end(site, ask, MARGIN + enough)
        seconds = time.monotonic() - began
        await site.settled()
        worked += await metrics.total(counted, "hart_batch_size_sum") - before
        named = isinstance(seen, errors.DeadlineExceeded) and seen.stage == stage
        if named or not isinstance(seen, errors.DeadlineExceeded):
            break  # else a busy machine took the time before this stage had the request
    report.law(f"out of time in {stage}: DEADLINE_EXCEEDED names it", named, f"{seen} after {seconds:.2f} s")
    report.law(f"and nobody works on after it ({stage})", worked == 0, worked)


async def _end(site: Site, prompt: str, seconds: float) -> errors.HartError | None:
    try:
        await site.client.generate(prompt, seed=1, timeout=seconds)
    except errors.HartError as error:
        return error
    return None


async def _enough(site: Site) -> float:
    """Seconds in which a picture is drawn, and a hung replica is not yet given up."""
    alone = (await draw(site.client, ASK, site.truth)).seconds
    return min(3.0, SHORT + 2 * alone)


def _names(outcome: RequestResult, stage: str) -> bool:
    return isinstance(outcome.error, errors.DeadlineExceeded) and outcome.error.stage == stage


def _said(outcome: RequestResult) -> str:
    return f"{outcome.error or outcome.code} after {outcome.seconds:.2f} s"
