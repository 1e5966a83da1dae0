"""Requests whose deadline passes, at the gateway and in each stage: the status names the stage, and no work follows."""

from __future__ import annotations

import asyncio
import time

from hart import errors

from benchmarks.drills import chaos, metrics
from benchmarks.drills.cases import RequestCase
from benchmarks.drills.harness import Harness, opened
from benchmarks.drills.load import RequestResult, draw
from benchmarks.drills.report import Report
from benchmarks.harness.processes import STAGES

MARGIN = 0.4
"""The gateway's deadline margin in seconds, so that its status arrives before the client's own deadline on a busy
machine."""
SHORT = 0.5
TRIES = 4
CASE = RequestCase("a red heart", 0)


async def deadlines(harness: Harness, seconds: float, report: Report) -> None:
    """1 ms, shorter than a picture, and out of time in each stage in turn."""
    await _too_short(harness, report)
    async with opened(harness.cluster, harness.references, deadline_margin_seconds=str(MARGIN)) as careful:
        await _shorter_than_an_image(careful, report)
        for stage in STAGES:
            await _hangs(careful, stage, report)


async def _work(harness: Harness) -> dict[str, float]:
    return {stage: await harness.total(stage, "hart_batch_size_sum") for stage in STAGES}


async def _too_short(harness: Harness, report: Report) -> None:
    before = await _work(harness)
    outcomes = await asyncio.gather(*(draw(harness.client, CASE, harness.references, 0.001) for _ in range(50)))
    await harness.settled()
    after = await _work(harness)
    ended = all(isinstance(o.error, errors.DeadlineExceeded) for o in outcomes)
    report.invariant("1 ms: DEADLINE_EXCEEDED, 50 times", ended, {o.code for o in outcomes})
    report.invariant("and no stage worked for it", after == before, {s: after[s] - before[s] for s in STAGES})


async def _shorter_than_an_image(harness: Harness, report: Report) -> None:
    # The fastest: what else the machine does only makes a picture slower, and may end at any moment.
    alone = min([(await draw(harness.client, CASE, harness.references)).seconds for _ in range(8)])
    report.figure("a picture alone at its fastest, seconds", alone)
    scales = len((await harness.client.describe()).models[0].shape.scales)
    before = await harness.total("ar_generator", "hart_scale_duration_seconds_count", scale=str(scales - 1))
    for _ in range(TRIES):
        outcome = await draw(harness.client, CASE, harness.references, MARGIN + 0.4 * alone)
        await harness.settled()
        if _names(outcome, "ar_generator") or not isinstance(outcome.error, errors.DeadlineExceeded):
            break  # else a busy machine took the time before the generator had the request
    last = await harness.total("ar_generator", "hart_scale_duration_seconds_count", scale=str(scales - 1)) - before
    report.invariant(
        "shorter than a picture: DEADLINE_EXCEEDED names the generator", _names(outcome, "ar_generator"), _said(outcome)
    )
    report.invariant("and the picture is not drawn to its end", last == 0, last)


async def _hangs(harness: Harness, stage: str, report: Report) -> None:
    """The stage stands still until the request's time is over, and finds it when it goes on."""
    replicas = harness.replicas(stage)
    prompt = f"a red heart {time.time_ns()}"  # no cache holds it
    counted = [p for name in STAGES[STAGES.index(stage) :] for p in harness.replicas(name)]
    if stage in ("safety", "text_encoder"):  # these two are asked side by side
        counted = [*replicas, *harness.replicas("ar_generator"), *harness.replicas("decoder")]
    if stage == "decoder":
        counted = replicas
    worked = 0.0
    for _ in range(TRIES):
        enough = await _enough(harness)
        before = await metrics.total(counted, "hart_batch_size_sum")
        began = time.monotonic()
        with chaos.hung(*replicas):
            seen = await _end(harness, prompt, MARGIN + enough)
        seconds = time.monotonic() - began
        await harness.settled()
        worked += await metrics.total(counted, "hart_batch_size_sum") - before
        named = isinstance(seen, errors.DeadlineExceeded) and seen.stage == stage
        if named or not isinstance(seen, errors.DeadlineExceeded):
            break  # else a busy machine took the time before this stage had the request
    report.invariant(f"out of time in {stage}: DEADLINE_EXCEEDED names it", named, f"{seen} after {seconds:.2f} s")
    report.invariant(f"and no stage works after it ({stage})", worked == 0, worked)


async def _end(harness: Harness, prompt: str, seconds: float) -> errors.HartError | None:
    try:
        await harness.client.generate(prompt, seed=1, timeout=seconds)
    except errors.HartError as error:
        return error
    return None


async def _enough(harness: Harness) -> float:
    """Seconds in which a picture is drawn, and a hung replica is not yet given up."""
    alone = (await draw(harness.client, CASE, harness.references)).seconds
    return min(3.0, SHORT + 2 * alone)


def _names(outcome: RequestResult, stage: str) -> bool:
    return isinstance(outcome.error, errors.DeadlineExceeded) and outcome.error.stage == stage


def _said(outcome: RequestResult) -> str:
    return f"{outcome.error or outcome.code} after {outcome.seconds:.2f} s"
