"""Cancelled requests, at every phase of an image: its resources are free at once, and other requests are unaffected."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from hart import errors
from hart.results import Accepted, Progress

from benchmarks.drills import chaos, metrics
from benchmarks.drills.cases import RequestCase
from benchmarks.drills.harness import QUEUE, SLOTS, Harness
from benchmarks.drills.load import RequestResult, any_of, draw, judge, resent_when_full
from benchmarks.drills.report import Report
from benchmarks.harness.load import open_loop, percentile
from benchmarks.harness.processes import Process

GROWTH = 32 * 2**20  # bytes: the allocators' own coming and going
SETTLE = 20.0
TRIES = 4


async def cancel(harness: Harness, seconds: float, report: Report, times: int = 2000) -> None:
    """Everything below, with `times` random cancels (fewer where `seconds` are over first)."""
    await at_each_scale(harness, report)
    await queued(harness, report)
    for stage in ("safety", "text_encoder", "decoder"):
        await within(harness, stage, report)
    await interrupted_client(harness, report)
    await at_random(harness, seconds, times, report)


async def at_each_scale(harness: Harness, report: Report) -> None:
    """Cancel at the progress event of scale k: no scale is drawn after the one that runs then."""
    scales = (await harness.client.describe()).models[0].shape.scales
    freed, beyond = [], Counter[int]()
    for scale in range(len(scales) - 2):
        for _ in range(TRIES):
            before = await _drawn(harness, len(scales))
            events = harness.client.stream("a red heart", timeout=60, seed=5)
            async for event in events:
                if isinstance(event, Progress) and event.scale == scale:
                    break
            began = time.monotonic()
            await events.aclose()
            freed.append(await _until_free(harness.replicas("ar_generator"), began))
            after = await _drawn(harness, len(scales))
            late = [k for k in range(scale + 3, len(scales)) if after[k] > before[k]]
            if not late:
                break  # else a busy machine may have brought the cancel late
        if late:
            beyond[scale] += len(late)
    step = await _slowest_scale(harness)
    report.figure("seconds until the slot is free, max", max(freed))
    report.figure("slowest scale, mean seconds", step)
    report.invariant("a cancelled image stops at the next scale boundary", not beyond, beyond)


async def _drawn(harness: Harness, scales: int) -> list[float]:
    return [
        await harness.total("ar_generator", "hart_scale_duration_seconds_count", scale=str(k)) for k in range(scales)
    ]


async def _slowest_scale(harness: Harness) -> float:
    scales = (await harness.client.describe()).models[0].shape.scales
    last = str(len(scales) - 1)
    seconds = await harness.total("ar_generator", "hart_scale_duration_seconds_sum", scale=last)
    return seconds / max(1.0, await harness.total("ar_generator", "hart_scale_duration_seconds_count", scale=last))


async def _until_free(processes: Sequence[Process], began: float) -> float:
    """Seconds until no work is left in these processes."""
    while await metrics.total(processes, "hart_load") > 0 or await metrics.total(processes, "hart_inflight") > 0:
        if time.monotonic() - began > SETTLE:
            return float("inf")
        await asyncio.sleep(0.005)
    return time.monotonic() - began


async def queued(harness: Harness, report: Report) -> None:
    """Fill the slots of every generator and a part of its queue; cancel all: what waited is never begun."""
    generators = harness.replicas("ar_generator")
    count = len(generators) * (SLOTS + QUEUE // 2)
    before = await metrics.total(generators, "hart_scale_duration_seconds_count")
    with chaos.hung(*generators):
        tasks = [asyncio.create_task(_ignored(harness, RequestCase("a blue house", 50 + n))) for n in range(count)]
        await asyncio.sleep(1.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.3)
    began = time.monotonic()
    free = await _until_free(generators, began)
    begun = await metrics.total(generators, "hart_scale_duration_seconds_count") - before
    report.invariant("a generator that was hung frees all that was cancelled meanwhile", free < SETTLE, f"{free:.2f} s")
    report.invariant("and draws none of it to its end", begun <= 2 * count, f"{begun:g} batches for {count} images")


async def _ignored(harness: Harness, case: RequestCase) -> None:
    await draw(harness.client, case, harness.references)


async def within(harness: Harness, stage: str, report: Report) -> None:
    """Cancel while a stage holds the request: nothing is left in it, nor in the gateway."""
    replicas = harness.replicas(stage)
    awaited = Progress if stage == "decoder" else Accepted
    last = len((await harness.client.describe()).models[0].shape.scales) - 1
    for _ in range(TRIES):
        events = harness.client.stream(f"a prompt that no cache holds {time.time_ns()}", timeout=60, seed=5)
        with chaos.hung(*replicas):
            async for event in events:
                if isinstance(event, awaited) and getattr(event, "scale", last) == last:
                    break
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await events.aclose()
            gateway = await _until_free([harness.gateway], began)
        free = await _until_free(harness.replicas(), time.monotonic())
        if gateway < 2:
            break  # else a busy machine may have kept it waiting
        await harness.settled()
    report.invariant(f"cancelled in {stage}: the gateway is free at once", gateway < 2, f"{gateway:.3f} s")
    report.invariant(f"cancelled in {stage}: nothing is left in any stage", free < SETTLE, f"{free:.3f} s")


async def interrupted_client(harness: Harness, report: Report) -> None:
    """Ctrl-C in `hart generate` while the cluster works for it."""
    generators = harness.replicas("ar_generator")
    async with AsyncExitStack() as stack:
        for generator in generators:
            await stack.enter_async_context(chaos.slowed(generator, 0.05))
        command = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("hart")), "generate", "a red heart",
            "--endpoint", harness.gateway.address, "-o", str(harness.cluster.folder / "never.png"),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        # Read from the gateway: a slowed generator may answer its metrics late.
        while await metrics.total([harness.gateway], "hart_inflight") == 0 and command.returncode is None:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        command.send_signal(signal.SIGINT)
        _, said = await command.communicate()
        gateway = await _until_free([harness.gateway], time.monotonic())
    free = await _until_free(generators, time.monotonic())
    report.invariant(
        "Ctrl-C ends `hart` with 130", command.returncode == 130, f"{command.returncode} {said.decode()[-200:]}"
    )
    report.invariant("and frees the cluster", max(gateway, free) < SETTLE, f"{gateway:.3f} s, {free:.3f} s")


async def at_random(harness: Harness, seconds: float, times: int, report: Report) -> None:
    """Cancels at random moments, beside neighbours whose images are checked."""
    phases: Counter[str] = Counter()
    mean = percentile(
        [(await draw(harness.client, RequestCase("a red heart", 0), harness.references)).seconds for _ in range(5)], 0.5
    )
    end, left = time.monotonic() + seconds, times

    async def leave() -> None:
        nonlocal left
        while left > 0 and time.monotonic() < end:
            left -= 1
            phases[await _cancelled(harness, random.uniform(0, 2.5 * mean))] += 1

    async def leave_all() -> None:
        await asyncio.gather(*(leave() for _ in range(2 * SLOTS)))

    leaving = asyncio.create_task(leave_all())
    neighbours: list[RequestResult] = []
    held: list[metrics.Resources] = []
    while not leaving.done():
        send = resent_when_full(any_of(harness.client, harness.cases, harness.references))
        neighbours += await open_loop(0.2 / mean, 20 * mean, send)
        held = held or [metrics.resources(p) for p in harness.processes]  # warm by now
    await leaving
    await harness.settled()
    report.figure("cancels, by phase", phases)
    report.invariant("cancels reached the scales", sum(phases.values()) >= min(times, 20) and len(phases) > 2)
    judge(report, neighbours, harness.references, share=1.0)
    await _left_behind(harness, held, report)


async def _cancelled(harness: Harness, after: float) -> str:
    """Go away after so many seconds; the phase in which that was."""
    phase = "before it was accepted"
    try:
        async with asyncio.timeout(after):
            case = random.choice(harness.cases)
            async for event in harness.client.stream(case.prompt, timeout=60, **case.options()):
                if isinstance(event, Accepted):
                    phase = "before a scale"
                elif isinstance(event, Progress):
                    phase = f"after scale {event.scale}"
    except TimeoutError:
        return phase
    except errors.Overloaded:
        return "refused"
    return "too late"


async def _left_behind(harness: Harness, before: list[metrics.Resources], report: Report) -> None:
    free = await _until_free(harness.processes, time.monotonic())
    report.invariant("all slots and queue places are free", free < SETTLE, f"{free:.2f} s")
    after = [metrics.resources(p) for p in harness.processes]
    grown = {
        f"{p.name}:{p.port}": new.memory - old.memory
        for p, old, new in zip(harness.processes, before, after, strict=True)
    }
    shown = ", ".join(f"{name} {size / 2**20:+.1f}" for name, size in grown.items())
    report.invariant("no process holds more memory than before (MiB)", max(grown.values()) < GROWTH, shown)
    files = [new.files - old.files for old, new in zip(before, after, strict=True)]
    threads = [new.threads - old.threads for old, new in zip(before, after, strict=True)]
    report.invariant(
        "nor more files or threads", max(files) <= 8 and max(threads) <= 4, f"files {files}, threads {threads}"
    )
